"""DER, and BER on its way there: docs/formats/attestations.md, "CMS" and "Certificates"."""

from .refusal import Refusal

SEQUENCE, SET, OID, INTEGER, BITS, OCTETS, BOOLEAN, NULL = 0x30, 0x31, 0x06, 0x02, 0x03, 0x04, 0x01, 0x05
MAX_DEPTH, MAX_DIGITS = 24, 4


def wrong(what: str) -> Refusal:
    return Refusal("WORKER_IDENTITY_UNVERIFIED", what)


def _header(data: bytes, at: int, ber: bool) -> tuple[int, int | None, int]:
    """Tag, length (none if it is left open), and where the content begins."""
    if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
        raise wrong("no tag, or one of several bytes")
    tag, first = data[at], data[at + 1]
    if first < 0x80:
        return tag, first, at + 2
    if first == 0x80 and ber and tag & 0x20:
        return tag, None, at + 2
    count = first & 0x7F
    length = int.from_bytes(data[at + 2 : at + 2 + count], "big")
    short = encoded(length) == data[at + 1 : at + 2 + count]
    if not 1 <= count <= MAX_DIGITS or at + 2 + count > len(data) or not (ber or short):
        raise wrong("a length that is none")
    return tag, length, at + 2 + count


def encoded(length: int) -> bytes:
    if length < 0x80:
        return bytes([length])
    data = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(data)]) + data


def tlv(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + encoded(len(content)) + content


class Reader:
    """Elements of DER, one after another."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def empty(self) -> bool:
        return self.at == len(self.data)

    def peek(self) -> int | None:
        return None if self.empty else self.data[self.at]

    def element(self) -> tuple[int, bytes, bytes]:
        """Tag, content, and the whole element."""
        tag, length, begin = _header(self.data, self.at, ber=False)
        assert length is not None
        if begin + length > len(self.data):
            raise wrong("an element that is cut off")
        whole = self.data[self.at : begin + length]
        self.at = begin + length
        return tag, whole[len(whole) - length :], whole

    def take(self, tag: int) -> bytes:
        if self.peek() != tag:
            raise wrong(f"tag {self.peek()} instead of {tag}")
        return self.element()[1]

    def inner(self, tag: int) -> "Reader":
        return Reader(self.take(tag))

    def option(self, tag: int) -> bytes | None:
        return self.take(tag) if self.peek() == tag else None

    def flag(self) -> bool:
        """One whose default is false."""
        content = self.option(BOOLEAN)
        if content not in (None, b"\0", b"\xff"):
            raise wrong("a flag that is neither true nor false")
        return content == b"\xff"

    def whole(self, tag: int) -> bytes:
        begin = self.at
        self.take(tag)
        return self.data[begin : self.at]

    def end(self) -> None:
        if not self.empty:
            raise wrong("something follows")


def one(data: bytes, tag: int) -> Reader:
    """The inside of the one element that the bytes are."""
    outer = Reader(data)
    inner = outer.inner(tag)
    outer.end()
    return inner


def _converted(data: bytes, at: int, depth: int) -> tuple[bytes, int]:
    """One element as DER, and where it ended."""
    if depth > MAX_DEPTH:
        raise wrong("too deep")
    tag, length, begin = _header(data, at, ber=True)
    if length is not None and begin + length > len(data):
        raise wrong("an element that is cut off")
    if not tag & 0x20:
        assert length is not None
        return tlv(tag, data[begin : begin + length]), begin + length
    end = None if length is None else begin + length
    at, parts = begin, []
    while at != end:
        if end is None and data[at : at + 2] == b"\0\0":
            at += 2
            break
        if end is not None and at > end:
            raise wrong("an element longer than what it is in")
        part, at = _converted(data, at, depth + 1)
        parts.append(part)
    if tag == OCTETS | 0x20:
        pieces = [Reader(part).take(OCTETS) for part in parts]
        return tlv(OCTETS, b"".join(pieces)), at
    return tlv(tag, b"".join(parts)), at


def from_ber(data: bytes) -> bytes:
    """CMS, 1."""
    found, end = _converted(data, 0, 1)
    if end != len(data):
        raise wrong("something follows")
    return found
