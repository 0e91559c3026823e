"""The way to an address, step by step: a proxy, the name, the port, the certificate; and why a name is not found.

A name that is not found has many reasons, of which the resolver's library tells none apart. So the resolvers that this machine is told to
ask are asked by hand: over UDP port 53, as is usual, and whether their TCP port 53 is open.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lakeward.cli.overdue import Overdue, within

Step = tuple[str, bool | None, str, str]
"""Its name, whether it worked, what was found, what to do."""
PORTS = {"https": 443, "http": 80}
RESOLVERS = Path("/etc/resolv.conf")
DNS = 53
ANSWERS = {
    0: "knows the name",
    2: "answers SERVFAIL: it could not find out",
    3: "answers that there is no such name",
    5: "refuses to answer",
}
PATIENCE = 2.0  # seconds for a resolver


def reach(url: str, timeout: float) -> Iterator[Step]:
    """The steps to an address, up to the first that fails."""
    parts = urlsplit(url)
    host, port, way = parts.hostname or "", parts.port or PORTS[parts.scheme], ""
    target = host, port
    proxy = "" if proxy_bypass(host) else getproxies().get(parts.scheme, "")
    if proxy:
        through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        target = through.hostname or "", through.port or PORTS.get(through.scheme, 80)
        way = f"proxy {target[0]}:{target[1]}: "
    try:
        addresses = _resolved(*target, timeout)
    except (OSError, UnicodeError, Overdue) as error:
        yield "name resolution", False, f"{way}{target[0]} is not found: {_said(error)}", why_not_found(target[0], resolvers())
        return
    yield "name resolution", True, f"{way}{target[0]} is {', '.join(dict.fromkeys(address[0] for address in addresses))}", ""
    try:
        connection = _connected(addresses, timeout)
    except OSError as error:
        yield f"TCP port {target[1]}", False, f"{way}{target[0]}: {_said(error)}", _unreached(error, target[1], bool(proxy))
        return
    with connection:
        yield f"TCP port {target[1]}", True, f"{way}open", ""
        if parts.scheme == "https":
            yield _tls(connection, host, port, bool(proxy))


def _resolved(host: str, port: int, timeout: float) -> list[tuple[str, int]]:
    found = within(timeout, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), "name")
    return [(str(address[0]), int(address[1])) for *_, address in found]


def _connected(addresses: Sequence[tuple[str, int]], timeout: float) -> socket.socket:
    """To the first that takes it, all of them within the time. Raises OSError of the last."""
    tried = list(dict.fromkeys(addresses))[:4]
    for address in tried[:-1]:
        with suppress(OSError):
            return socket.create_connection(address, timeout / len(tried))
    return socket.create_connection(tried[-1], timeout / len(tried))


def _unreached(error: OSError, port: int, proxied: bool) -> str:
    if proxied:
        return "check the proxy that HTTPS_PROXY or HTTP_PROXY names, or put the host into NO_PROXY"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: check the address and its port"
    if isinstance(error, TimeoutError):
        return f"a firewall or a network security group probably drops it: allow outbound TCP port {port} from this machine to that address"
    return "check the network of this machine, its routes and its firewall"


def _tls(connection: socket.socket, host: str, port: int, proxied: bool) -> Step:
    try:
        if proxied:
            connection.sendall(
                f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode("idna" if not host.isascii() else "ascii")
            )
            told = connection.recv(4096).split(b"\r\n")[0].decode("latin-1")
            if " 200" not in told:
                return "TLS", False, f"the proxy answered {told[:80]!r}", "have the proxy let this host through, or put it into NO_PROXY"
        with ssl.create_default_context().wrap_socket(connection, server_hostname=host) as secured:
            certificate = secured.getpeercert() or {}
            return "TLS", True, f"{secured.version()}, certificate good until {certificate.get('notAfter', '?')}", ""
    except ssl.SSLCertVerificationError as error:
        todo = "check the address; where a proxy looks into TLS, add its certificate (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE)"
        if error.verify_code in (9, 10):  # not yet valid, expired
            todo = "check the clock of this machine; if it is right, the other side must renew its certificate"
        return "TLS", False, f"its certificate is not trusted: {error.verify_message}", todo
    except (ssl.SSLError, OSError) as error:
        todo = (
            "something else than this service seems to listen there, or it speaks without TLS: begin the address with http:// if that is "
            "meant, else check address, port and proxies"
        )
        return "TLS", False, _said(error), todo


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({error.reason or error})"
    return "no answer in time" if isinstance(error, TimeoutError) else str(getattr(error, "strerror", "") or error)


# -- why a name is not found -------------------------------------------------------------------------------------------


def resolvers() -> list[tuple[str, int]]:
    """Those that this machine is told to ask."""
    try:
        words = [line.split() for line in RESOLVERS.read_text().splitlines()]
    except OSError:
        return []
    return [(line[1], DNS) for line in words if len(line) > 1 and line[0] == "nameserver"][:3]


def why_not_found(host: str, asked: Sequence[tuple[str, int]], patience: float = PATIENCE) -> str:
    """What the resolvers say when they are asked by hand, and what to do about that."""
    if not asked:
        return f"{RESOLVERS} names no resolver: add one; for containers, give one to Docker (docker run --dns 1.1.1.1)"
    told, silent, answered = [], [], set[int]()
    for address, port in asked:
        code = _ask(host, address, port, patience)
        if code is None:
            open_ = _is_open(address, port, patience)
            told.append(
                f"resolver {address} does not answer on UDP port {port} (TCP port {port} is {'open' if open_ else 'not reachable'})"
            )
            silent.append(address)
        else:
            told.append(f"resolver {address} {ANSWERS.get(code, f'answers with code {code}')}")
            answered.add(code)
    if 3 in answered:
        todo = "check the spelling of the host; if it is right, is it in a private zone that this resolver does not know?"
    elif silent:
        todo = (
            "outbound UDP port 53 is probably blocked: allow it in the firewall of this machine (iptables), outside of it, or in the "
            f"network security group, to {', '.join(silent)}; or have Docker ask another resolver ("
            '"dns": ["1.1.1.1"] in /etc/docker/daemon.json)'
        )
    elif 0 in answered:
        todo = "the resolver knows it now, or knows no address of it: try again, and look into /etc/nsswitch.conf"
    else:
        todo = "ask whoever runs the resolver, or name another one in /etc/resolv.conf"
    return f"{'; '.join(told)}. {todo[0].upper()}{todo[1:]}"


def _ask(host: str, resolver: str, port: int, patience: float) -> int | None:
    """The code of its answer; None when there is none. A question for an address, as of RFC 1035, section 4."""
    with suppress(OSError, UnicodeError):
        number = secrets.token_bytes(2)
        labels = b"".join(bytes([len(part)]) + part for part in host.rstrip(".").encode("idna").split(b"."))
        question = number + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
        family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(patience)
            asking.connect((resolver, port))
            asking.send(question)
            answer = asking.recv(4096)
            if len(answer) >= 4 and answer[:2] == number:
                return answer[3] & 0x0F
    return None


def _is_open(resolver: str, port: int, patience: float) -> bool:
    with suppress(OSError), socket.create_connection((resolver, port), patience):
        return True
    return False
