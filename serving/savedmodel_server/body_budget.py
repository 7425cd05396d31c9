"""How many bytes of unfinished requests one process keeps, over all its connections."""

from __future__ import annotations


class BodyBudget:
    """Belongs to the event loop's thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def change(self, change_bytes: int) -> bool:
        """Take so many more bytes, or give them back; False where the limit would be passed, and nothing is taken."""
        if change_bytes > 0 and self.used_bytes + change_bytes > self.limit_bytes:
            return False
        self.used_bytes += change_bytes
        return True

    @property
    def refusal(self) -> str:
        """What a client reads whose request is over the limit."""
        return (
            f"The server holds more than {self.limit_bytes} bytes of unfinished requests "
            "(--max_unfinished_request_bytes); try again."
        )
