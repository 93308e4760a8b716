"""A parser for fish's start-up files: the same nodes as `posix` gives, from fish's own syntax."""

from __future__ import annotations

import re
from collections.abc import Callable

from .fish_tokens import Tokens
from .syntax import (
    Block,
    Case,
    Chain,
    For,
    Function,
    If,
    Node,
    Not,
    Pipe,
    Script,
    Simple,
    While,
    Word,
    mark_alone,
)

_REDIRECT = re.compile(r"&>|\d?>(?!\|)|<")
_CLOSING = ("end", "else", "case")


def parse(text: str) -> Script:
    """The commands of `text`. Raises SyntaxProblem."""
    parser = _Parser(text)
    body = parser.block(())
    if parser.next is not None:
        raise parser.problem("a block ends that was never begun")
    mark_alone(body)
    return Script(text, body, parser.line_starts)


class _Parser(Tokens):
    def block(self, closing: tuple[str, ...]) -> Block:
        body = Block()
        opened = self.start
        while True:
            while self.next in (";", "\n", "&"):
                self.advance()
            if self.next is None:
                if closing:
                    raise self.problem("a block is never closed with 'end'", opened)
                return body
            if self.keyword() in _CLOSING:
                if self.keyword() in closing or not closing:
                    return body
                raise self.problem(f"'{self.keyword()}' without its beginning")
            item = self.chain()
            if self.keyword() not in _CLOSING and self.next not in (";", "\n", "&", None):
                raise self.problem("a command is missing around an operator")
            body.items.append(Pipe([item]) if self.next == "&" else item)
            self.join(body)

    def join(self, body: Block) -> None:
        """`and` and `or` at a command's beginning join it to the one before, over the separator."""
        while True:
            at, start, token, starts = self.at, self.start, self.next, len(self.line_starts)
            while self.next in (";", "\n"):
                self.advance()
            word = self.keyword()
            if word not in ("and", "or"):
                self.at, self.start, self.next = at, start, token
                del self.line_starts[starts:]
                return
            self.advance()
            before = body.items.pop()
            items = before.items if isinstance(before, Chain) else [("", before)]
            added = self.chain()
            more = added.items if isinstance(added, Chain) else [("", added)]
            body.items.append(Chain([*items, ("&&" if word == "and" else "||", more[0][1]), *more[1:]]))

    def chain(self) -> Node:
        items: list[tuple[str, Node]] = [("", self.pipeline())]
        while self.next in ("&&", "||"):
            operator = str(self.next)
            self.advance()
            while self.next == "\n":
                self.advance()
            items.append((operator, self.pipeline()))
        return items[0][1] if len(items) == 1 else Chain(items)

    def pipeline(self) -> Node:
        turned = False
        while self.keyword() in ("not", "!", "time", "and", "or"):
            turned ^= self.keyword() in ("not", "!")
            self.advance()
        items = [self.command()]
        while isinstance(self.next, str) and self.next.endswith("|") and self.next != "||":
            self.advance()
            while self.next == "\n":
                self.advance()
            items.append(self.command())
        node = items[0] if len(items) == 1 else Pipe(items)
        return Not(node) if turned else node

    def command(self) -> Node:
        kinds: dict[str, Callable[[], Node]] = {
            "if": self.if_,
            "while": self.while_,
            "for": self.for_,
            "switch": self.switch,
            "function": self.function,
            "begin": self.begin,
        }
        kind = kinds.get(self.keyword() or "")
        if kind is None:
            return self.simple()
        node: Node = kind()
        self.redirects()
        return node

    def end(self) -> None:
        if self.keyword() != "end":
            raise self.problem("'end' is missing")
        self.advance()

    def if_(self) -> If:
        branches: list[tuple[Node | None, Block]] = []
        while True:
            self.advance()
            condition: Node | None = self.condition()
            branches.append((condition, self.block(("end", "else"))))
            if self.keyword() == "end":
                break
            self.advance()
            if self.keyword() != "if":
                branches.append((None, self.block(("end",))))
                break
        self.end()
        return If(branches)

    def condition(self) -> Node:
        body = Block([self.chain()])
        self.join(body)
        return body.items[0]

    def while_(self) -> While:
        self.advance()
        condition = self.condition()
        body = self.block(("end",))
        self.end()
        return While(condition, body)

    def rest(self) -> list[Word]:
        found = []
        while True:
            if isinstance(self.next, Word):
                found.append(self.next)
                self.advance()
            elif not self.redirects():
                return found

    def for_(self) -> For:
        self.advance()
        head = self.rest()
        body = self.block(("end",))
        self.end()
        return For((head[0].literal or "_") if head else "_", head[2:], body)

    def switch(self) -> Case:
        opened = self.start
        self.advance()
        head = self.rest()
        if not head:
            raise self.problem("a word is missing after 'switch'", opened)
        self.block(("case", "end"))
        items: list[tuple[list[Word], Block]] = []
        while self.keyword() == "case":
            self.advance()
            patterns = self.rest()
            items.append((patterns, self.block(("case", "end"))))
        self.end()
        return Case(head[0], items)

    def function(self) -> Function:
        line = self.line()
        self.advance()
        head = self.rest()
        body = self.block(("end",))
        self.end()
        return Function([head[0].literal or ""] if head else [], body, line)

    def begin(self) -> Block:
        self.advance()
        body = self.block(("end",))
        self.end()
        return body

    def simple(self) -> Node:
        line = self.line()
        found = self.rest()
        if found:
            return Simple(found, line)
        raise self.problem("a command is missing")

    def redirects(self) -> bool:
        """Pass over redirections; whether there was one."""
        some = False
        while isinstance(self.next, str) and _REDIRECT.match(self.next):
            some = True
            self.advance()
            if isinstance(self.next, str) and self.next == "&":  # >&2
                self.advance()
            if isinstance(self.next, Word):
                self.advance()
        return some
