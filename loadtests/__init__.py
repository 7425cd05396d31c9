"""What is asked of it: arrival processes, the open-loop Locust user, wire clients and the sample recorder."""

import os

# Arrow's own pool keeps what it once had: 40 MB more in every worker, for nothing that samples would gain. It is chosen
# when pyarrow is first imported, so it must be said before any module here does that.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
