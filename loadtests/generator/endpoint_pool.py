"""The endpoints of a load and the connections that are open to them: which one the next request takes."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.generator.connection_grpc import GrpcConnection
from loadtests.generator.connection_http1 import Http1Connection
from loadtests.generator.connections import Connection, ConnectionOwner
from loadtests.generator.endpoints_file import Made
from loadtests.generator.load import Target
from serving.socket_errors import errno_reason


@dataclass
class PooledEndpoint:
    """One endpoint, with what is under way there."""

    index: int
    idle: list[Connection] = field(default_factory=list)
    """That can take a request at once; the last one is used first."""
    open: set[Connection] = field(default_factory=set)
    leaving: set[Connection] = field(default_factory=set)
    """That take no more requests, and are closed when those under way have ended."""
    in_flight: int = 0
    listed: bool = True
    """Whether it gets requests; one that does not ends what is under way."""


class EndpointPool:
    """All endpoints by their index, and up to `most` connections to each of them.

    `spare_descriptors`: how many connections may be open at once.
    """

    def __init__(self, owner: ConnectionOwner, target: Target, most: int, spare_descriptors: int) -> None:
        self.endpoints = [PooledEndpoint(index) for index in range(len(target.addresses))]
        self.refusal = ""
        """Why the last socket could not be opened; empty where there was no need for one."""
        self._owner, self._grpc = owner, target.grpc
        self._connection_type = GrpcConnection if target.grpc else Http1Connection
        self._addresses, self._requests = list(target.addresses), list(target.requests)
        self._most, self._spare_descriptors = most, spare_descriptors
        self.listed = list(self.endpoints)
        """Those that get requests."""
        self._turn = 0
        self.sockets_beside = 0
        """Sockets of connections that try several addresses, beyond the first of each."""

    def choose(self) -> PooledEndpoint:
        """The endpoint with the fewest requests under way; equals take turns."""
        endpoints = self.listed
        if len(endpoints) == 1:
            return endpoints[0]
        self._turn = (self._turn + 1) % len(endpoints)
        turned = endpoints[self._turn :] + endpoints[: self._turn]
        return min(turned, key=lambda endpoint: endpoint.in_flight)

    def find_room(self, endpoint: PooledEndpoint) -> Connection | None:
        """A connection that can take a request, an open one or a new one; where there is none, see `refusal`."""
        while endpoint.idle:
            connection = endpoint.idle[-1]
            room = connection.has_room()
            if not room or not self._grpc:
                endpoint.idle.pop()
                connection.pooled = False
            if room:
                return connection
        if len(endpoint.open) < self._most:
            return self.connect(endpoint)
        self.refusal = ""
        return None

    def connect(self, endpoint: PooledEndpoint) -> Connection | None:
        """A new connection; None where there can be none, and then `refusal` says why."""
        index = endpoint.index
        try:
            if not self.has_spare_descriptor():
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            connection = self._connection_type(self._owner, index, self._addresses[index], self._requests[index])
        except OSError as error:
            self.refusal = errno_reason(error.errno, "connect")
            return None
        endpoint.open.add(connection)
        if self._grpc:
            self.keep(connection)
        return connection

    def has_spare_descriptor(self) -> bool:
        """True while another socket may be opened."""
        opened = sum(len(each.open) + len(each.leaving) for each in self.endpoints) + self.sockets_beside
        return opened < self._spare_descriptors

    def connect_first(self, connections: int) -> None:
        """Begin to open so many connections, shared evenly; who refuses is found again by the first request."""
        share = -(-connections // len(self.endpoints))
        for endpoint in self.endpoints:
            for _ in range(share):
                self.connect(endpoint)

    def keep(self, connection: Connection) -> None:
        """Let it wait for a request, if it can take one."""
        if not connection.pooled and connection.has_room():
            connection.pooled = True
            self.endpoints[connection.endpoint].idle.append(connection)

    def leave(self, connection: Connection) -> None:
        """It takes no more requests, and makes room for another one."""
        self.lost(connection)
        self.endpoints[connection.endpoint].leaving.add(connection)

    def lost(self, connection: Connection) -> None:
        """It has closed."""
        endpoint = self.endpoints[connection.endpoint]
        endpoint.open.discard(connection)
        endpoint.leaving.discard(connection)
        if connection.pooled:
            connection.pooled = False
            endpoint.idle.remove(connection)

    def opened(self) -> list[Connection]:
        """Every connection that is open or opening."""
        return [connection for endpoint in self.endpoints for connection in (*endpoint.open, *endpoint.leaving)]

    def relist(self, listed: Sequence[int], added: Sequence[Made]) -> None:
        """Give requests to these endpoints (by index) only; `added` get the next free indexes."""
        for address, requests in added:
            self._addresses.append(address)
            self._requests.append(requests)
            self.endpoints.append(PooledEndpoint(len(self.endpoints), listed=False))
        self.listed[:] = [self.endpoints[index] for index in listed]
        for endpoint in self.endpoints:
            before, endpoint.listed = endpoint.listed, endpoint.index in listed
            if endpoint.listed and not before and not endpoint.open:
                self.connect(endpoint)
            elif before and not endpoint.listed:
                for connection in [each for each in endpoint.open if each.idle()]:
                    connection.close()
