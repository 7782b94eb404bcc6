"""The CNI shim: what a container runtime executes. It forwards one CNI call to the node agent and prints the answer.

Owns the call: its environment, its deadline, its repetition, and the error object where nobody answers. The NATS
request-reply is hand-written, because any client library costs more time than a whole attach. Read it from the end:
`main`, then `exchange`. Must not know what the network configuration says (stdin is forwarded untouched), nor how an
attach is done. It is frozen into one static executable that starts without codecs, streams and `site` (see main.c):
text is bytes here, and a test counts the imports.
"""

import _socket
import posix
from posix import _exit as leave  # pyright: ignore[reportPrivateUsage]  # nothing is worth finalising

from cni.config import Config
from cni.wire import NoResponder, Ping, Reply, Wire, WireError

TYPE_CHECKING = False  # `typing` is not in the executable; type checkers know this name
if TYPE_CHECKING:
    from cni.fallback import Native


BODY_MAX_BYTES = 512 * 1024
HEADER_MAX_BYTES = 64 * 1024
CONFIG_MAX_BYTES = 64 * 1024
REPEAT_NS = 2_000_000_000  # an agent may have been killed holding the request; its successor answers the copy
PAUSE_MIN_NS, PAUSE_MAX_NS = 5_000_000, 250_000_000
DEADLINES_S = {b"ADD": 60.0, b"DEL": 30.0, b"CHECK": 10.0, b"GC": 25.0, b"STATUS": 1.0, b"VERSION": 10.0}
VERSIONS = (b"0.3.0", b"0.3.1", b"0.4.0", b"1.0.0", b"1.1.0")
CNI_VARIABLES = (b"CNI_COMMAND", b"CNI_CONTAINERID", b"CNI_NETNS", b"CNI_IFNAME", b"CNI_ARGS", b"CNI_PATH")
TRACE_VARIABLES = (b"TRACEPARENT", b"TRACESTATE", b"BAGGAGE")
PRINTABLE = bytes(range(0x20, 0x7F))
PLAIN = PRINTABLE.translate(None, b" %")  # header readers strip spaces, so these are encoded too
INSTALL_AGAIN = b"run `orbweaver cni install` again for this node"
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
EINVAL = 22
FILE_KIND, PLAIN_FILE = 0o170000, 0o100000  # of st_mode, inode(7)


class CniError(Exception):
    """What the runtime gets as a CNI error object: `code` as in shared/errors.py, what happened, what to do."""

    def __init__(self, code: int, message: bytes, details: bytes) -> None:
        self.code, self.message, self.details, self.version = code, message, details, b""


def encode(value: bytes) -> bytes:
    """Percent-encodes a header value, so that any byte the environment may hold survives."""
    if not value.translate(None, PLAIN):
        return value
    return b"".join(b"%c" % c if c in PLAIN else b"%%%02X" % c for c in value)


def quote(text: bytes) -> bytes:
    """`text` as a JSON string; bytes that are not UTF-8 become U+FFFD."""
    escaped = text.decode("utf-8", "replace").replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        escaped = "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped)
    return b'"%b"' % escaped.encode()


def reason(error: OSError | WireError) -> bytes:
    return ((isinstance(error, OSError) and error.strerror) or str(error)).encode()


def read_config(native: "Native") -> Config:
    """From the directory of the executable itself, or else from that of the name it was called by (a symbolic link)."""
    problem = b""
    for program in (native.executable, native.called_as):
        path = program[: program.rfind(b"/") + 1] + b"orbweaver.json"
        try:
            descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                return Config(posix.read(descriptor, CONFIG_MAX_BYTES))
            finally:
                posix.close(descriptor)
        except OSError as error:
            problem = problem or b"%b: %b" % (path, reason(error))
        except (ValueError, KeyError, RecursionError):
            raise CniError(6, b"%b is not a configuration of this plugin" % path, INSTALL_AGAIN) from None
    raise CniError(5, b"the plugin's configuration cannot be read: " + problem, INSTALL_AGAIN)


def read_body(native: "Native", deadline_ns: int) -> bytes:
    """Standard input to its end. Above the limit it is refused at once, and the rest stays unread."""
    body = b""
    try:
        while True:
            if not native.readable(0, deadline_ns):
                what = b"stdin has no end: %d bytes of the configuration, and then silence" % len(body)
                raise CniError(5, what, b"the container runtime closes it after the configuration")
            chunk = posix.read(0, 65536)
            if not chunk:
                return body
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                what = b"the network configuration on stdin is larger than %d bytes" % BODY_MAX_BYTES
                raise CniError(6, what, b"remove from it what the plugin does not need")
    except OSError as error:
        what = b"the network configuration cannot be read from stdin: " + reason(error)
        raise CniError(5, what, b"the container runtime passes it there") from None


def version_asked(body: bytes) -> bytes:
    """The cniVersion in `body` where it is one that we speak, else empty; good enough without parsing it."""
    after = body.partition(b'"cniVersion"')[2][:64].lstrip()
    version = after[1:].lstrip()[1:].partition(b'"')[0] if after[:1] == b":" else b""
    return version if version in VERSIONS else b""


class Request:
    """The call as NATS sends it: what opens a connection, and the publish, which may be sent again."""

    def __init__(self, config: Config, native: "Native", deadline_ns: int, body: bytes) -> None:
        environment = posix.environ
        header = [
            b"NATS/1.0\r\nOrb-Version: 1\r\nOrb-Name: " + encode(native.called_as.rpartition(b"/")[2]),
            b"Orb-Attempt: " + posix.urandom(16).hex().encode(),
            b"Orb-Start-Ns: %d\r\nOrb-Deadline-Ns: %d" % (native.start_ns, deadline_ns),
        ]
        for name in CNI_VARIABLES:
            if name in environment:
                header.append(b"Cni-%b: %b" % (name[4:].capitalize(), encode(environment[name])))
        for name in TRACE_VARIABLES:
            if name in environment and not environment[name].translate(None, PRINTABLE):
                header.append(b"%b: %b" % (name.lower(), environment[name]))
        head = b"\r\n".join(header) + b"\r\n\r\n"
        if len(head) > HEADER_MAX_BYTES:
            what = b"the CNI_* variables are larger than %d bytes" % HEADER_MAX_BYTES
            raise CniError(4, what, b"shorten CNI_ARGS or CNI_PATH")
        options = b'"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"orbweaver","protocol":1'
        credential = b'"user":%b,"pass":%b' % (quote(config.user), quote(config.password))
        self.inbox = b"_INBOX_shim.%b." % posix.urandom(12).hex().encode()
        self.hello = b"CONNECT {%b,%b}\r\nSUB %b* 1\r\n" % (options, credential, self.inbox)
        self.subject, self.sent = config.subject, 0
        self.rest = b" %d %d\r\n%b%b\r\n" % (len(head), len(head) + len(body), head, body)

    def publish(self) -> bytes:
        """Each copy has a reply subject of its own: `allow_responses` of nats-server 2.15 denies the answer to a used one."""
        self.sent += 1
        return b"HPUB %b %b%d%b" % (self.subject, self.inbox, self.sent, self.rest)


def exchange(config: Config, native: "Native", request: Request, deadline_ns: int) -> Reply:
    """Connects and asks until somebody answers. Raises CniError at the deadline, or when the credential is refused."""
    link, wire, last, pause_ns = None, Wire(), b"not asked", PAUSE_MIN_NS
    while (now_ns := native.boottime_ns()) < deadline_ns:
        try:
            unsent = request.publish()
            if link is None:
                wire, unsent = Wire(), request.hello + unsent
                if config.netns:
                    enter(config.netns, native)
                link = _socket.socket(_socket.AF_INET6 if ":" in config.address[0] else _socket.AF_INET)
                link.settimeout((deadline_ns - now_ns) / 1e9)
                link.connect(config.address)
            last = b"connected, but no answer"
            try:
                link.sendall(unsent)
            except OSError as error:
                last = reason(error)  # goes on: why the server closed can still be read
            heard = listen(link, wire, native, min(deadline_ns, now_ns + REPEAT_NS))
            if isinstance(heard, Reply):
                return heard
            if heard is None:
                continue
            last = b"nobody serves " + config.subject
        except (OSError, WireError) as error:
            last = reason(error)
            if link is not None:
                link.close()
                link = None
        native.sleep(min(pause_ns, deadline_ns - native.boottime_ns()))
        pause_ns = min(pause_ns * 2, PAUSE_MAX_NS)
    who = b"the node agent" if wire.greeted else b"the NATS leaf at " + config.server
    last += b"; see `orbweaver status`"
    if not wire.greeted:
        last += b", and run `orbweaver up` if the system is down"
    waited = b"%b did not answer for %.1f s" % (who, (native.boottime_ns() - native.start_ns) / 1e9)
    if posix.environ[b"CNI_COMMAND"] == b"STATUS":
        raise CniError(50, b"the plugin is not available: " + waited, last)
    raise CniError(11, b"Try again later: " + waited, last)


def listen(link: _socket.socket, wire: Wire, native: "Native", until_ns: int) -> Reply | NoResponder | None:
    """The first thing that matters on the connection; None where it stays silent. Raises OSError, WireError, CniError."""
    while (now_ns := native.boottime_ns()) < until_ns:
        link.settimeout(max((until_ns - now_ns) / 1e9, 0.001))
        try:
            received = link.recv(65536)
        except TimeoutError:
            return None
        if not received:
            raise WireError("the server closed the connection")
        nobody = None
        for event in wire.feed(received):
            if isinstance(event, Reply):
                return event
            if isinstance(event, NoResponder):
                nobody = event
            elif isinstance(event, Ping):
                link.sendall(b"PONG\r\n")
            elif event.final:
                what = b"the NATS leaf at the node refuses the plugin's credential: " + event.text
                raise CniError(116, what, INSTALL_AGAIN)
            else:
                raise WireError(event.text.decode("utf-8", "replace"))
        if nobody:
            return nobody
    return None


def answer(native: "Native") -> Reply:
    """One CNI call. Raises CniError."""
    command = posix.environ.get(b"CNI_COMMAND", b"")
    if command not in DEADLINES_S:
        what = b"CNI_COMMAND is %b" % (quote(command) if command else b"not set")
        raise CniError(4, what, b"the container runtime sets it to ADD, DEL, CHECK, GC, STATUS or VERSION")
    body = read_body(native, native.start_ns + int(DEADLINES_S[command] * 1e9))
    if command == b"VERSION":
        versions = b",".join(quote(version) for version in VERSIONS)
        reply = b'{"cniVersion":%b,"supportedVersions":[%b]}\n'
        return Reply(0, reply % (quote(version_asked(body) or VERSIONS[-1]), versions))
    try:
        config = read_config(native)
        deadline_ns = native.start_ns + int(config.deadlines_s.get(command, DEADLINES_S[command]) * 1e9)
        request = Request(config, native, deadline_ns, body)
        return exchange(config, native, request, deadline_ns)
    except CniError as failure:
        failure.version = version_asked(body)
        raise


def enter(netns: bytes, native: "Native") -> None:
    """To where the leaf's loopback is: a runtime may execute plugins in a node's or pod's network namespace.

    Raises OSError where the namespace may come back (a system that is down has unmounted it), CniError where it cannot be.
    """
    descriptor = -1
    try:
        descriptor = posix.open(netns, posix.O_RDONLY | posix.O_CLOEXEC)
        native.setns(descriptor, CLONE_NEWNET)
    except OSError as error:
        what = b"the network namespace %b cannot be entered: %b" % (netns, reason(error))
        # The mount point without its mount is a plain file, which setns(2) refuses as it refuses a device.
        plain = descriptor >= 0 and posix.fstat(descriptor).st_mode & FILE_KIND == PLAIN_FILE
        if isinstance(error, FileNotFoundError) or (error.errno == EINVAL and plain):
            raise OSError(error.errno, what.decode("utf-8", "replace")) from None
        raise CniError(5, what, b"run the plugin as root, or " + INSTALL_AGAIN) from None
    finally:
        if descriptor >= 0:
            posix.close(descriptor)


def error_object(failure: CniError) -> Reply:
    """CNI spec 1.1, "Error"."""
    texts = quote(failure.version or b"1.0.0"), failure.code, quote(failure.message), quote(failure.details)
    return Reply(1, b'{"cniVersion":%b,"code":%d,"msg":%b,"details":%b}\n' % texts)


def main(native: "Native") -> None:
    """Never returns, and never raises: whatever happens, the runtime gets one JSON object and an exit code."""
    try:
        reply = answer(native)
    except CniError as failure:
        reply = error_object(failure)
    except BaseException as error:
        what = b"%b: %b" % (type(error).__name__.encode(), str(error).encode("utf-8", "replace"))
        reply = error_object(CniError(199, what, b"this is a defect of the CNI shim"))
    try:
        unwritten = reply.body
        while unwritten:
            unwritten = unwritten[posix.write(1, unwritten) :]
    except OSError:
        leave(1)
    leave(reply.exit_code)
