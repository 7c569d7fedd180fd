"""DNS messages: a question out of bytes, bytes out of an answer. Takes dnspython in: import it when a query comes."""

from __future__ import annotations

from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from knode.dns.zone import TTL_S, Answer, Record

UDP_BYTES = 512
"""What a datagram may hold whose sender says nothing of it."""
UDP_BYTES_MAX = 4096
TCP_BYTES_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Query:
    message: dns.message.Message
    name: str
    """In lower case, without its last dot."""
    type: str

    @property
    def room(self) -> int:
        """Bytes of an answer in a datagram."""
        return min(max(self.message.payload or 0, UDP_BYTES), UDP_BYTES_MAX)


def parse(data: bytes) -> Query | bytes | None:
    """A question, or the answer to what is none that is answered here; None: not worth one."""
    try:
        message = dns.message.from_wire(data)
    except dns.exception.DNSException:
        return None
    if message.flags & dns.flags.QR:
        return None
    if message.opcode() != dns.opcode.QUERY:
        return failure(message, dns.rcode.NOTIMP)
    if len(message.question) != 1:
        return failure(message, dns.rcode.FORMERR)
    question = message.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return failure(message, dns.rcode.REFUSED)
    name = question.name.to_text(omit_final_dot=True).lower()
    return Query(message, '' if name == '.' else name, dns.rdatatype.to_text(question.rdtype))


def failure(message: dns.message.Message, code: dns.rcode.Rcode = dns.rcode.SERVFAIL) -> bytes:
    response = dns.message.make_response(message, recursion_available=True)
    response.set_rcode(code)
    return response.to_wire()


def build(query: Query, answer: Answer, authority: Record, room: int) -> bytes:
    """Cut when there is no room. dnspython puts addresses in random order: clients that take the first spread."""
    response = dns.message.make_response(query.message, recursion_available=True)
    response.flags |= dns.flags.AA
    response.set_rcode(dns.rcode.from_text(answer.code))
    for record in answer.records:
        _add(response.answer, record)
    for record in answer.extra:
        _add(response.additional, record)
    if not answer.records:
        _add(response.authority, authority)
    return wire(response, room)


def _add(section: list[dns.rrset.RRset], record: Record) -> None:
    made = dns.rrset.from_text(f'{record.name}.', TTL_S, 'IN', record.type, record.data)
    held = next((s for s in section if (s.name, s.rdtype) == (made.name, made.rdtype)), None)
    if held is None:
        section.append(made)
    else:
        held.add(made[0])


def wire(response: dns.message.Message, room: int) -> bytes:
    try:
        return response.to_wire(max_size=room)
    except dns.exception.TooBig:
        response.flags |= dns.flags.TC
        response.answer.clear()
        response.additional.clear()
        response.authority.clear()
        return response.to_wire(max_size=room)


def question(name: str, kind: str) -> bytes:
    """A query of our own, for what an alias leads to."""
    return dns.message.make_query(f'{name}.', kind).to_wire()


def records(data: bytes) -> tuple[Record, ...]:
    """What somebody else's answer says."""
    try:
        message = dns.message.from_wire(data)
    except dns.exception.DNSException:
        return ()
    return tuple(
        Record(rrset.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(rrset.rdtype), rdata.to_text())
        for rrset in message.answer
        for rdata in rrset
    )


def code(data: bytes) -> str:
    """The response code of an answer, as text."""
    return dns.rcode.to_text(dns.rcode.Rcode(data[3] & 0x0F))
