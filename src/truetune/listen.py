"""A port to listen on, taken before anything slow is done, so that a port in use is told at once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from truetune.findings import Both, problem
from truetune.options import Config


@contextmanager
def taken_port(config: Config, host: str, port: str, tries: int = 1) -> Iterator[socket.socket]:
    """A socket that is bound but does not listen yet.

    Args:
        host, port: the options that say where.
        tries: how many ports to try, from that one upwards, where they are in use.

    Raises:
        Problem: there is no such address, or the port cannot be had.
    """
    name, first = str(getattr(config, host)), int(getattr(config, port))
    try:
        family, *_, address = socket.getaddrinfo(name.strip("[]"), first, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise problem("bad-host", Both(f"there is no address {name!r}: {error}.", f"没有地址 {name!r}：{error}。"),
                      option=host) from None
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        last = min(first + tries, 65536) if first else 1
        for number in range(first, max(last, first + 1)):
            try:
                taken.bind((address[0], number, *address[2:]))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or number + 1 >= last:
                    raise problem("port-taken", Both(f"port {number} cannot be had: {error.strerror}.",
                                                     f"无法使用端口 {number}：{error.strerror}。"), option=port,
                                  where=config.origin(port),
                                  fix=Both("Choose another, or 0 for a free one.",
                                           "换一个端口，或用 0 任选空闲端口。")) from None
        yield taken


def address_of(host: str, taken: socket.socket) -> str:
    """The address as a client types it: `http://127.0.0.1:8000`."""
    shown = host.strip("[]")
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{taken.getsockname()[1]}"
