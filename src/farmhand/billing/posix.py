"""A parser for the start-up files of sh, bash and zsh, as far as it takes to know which commands stand where.

It understands quoting, here-documents, lists, pipelines and all compound commands; what a word expands to is for
`interp`. A file that it cannot follow raises SyntaxProblem: the caller then changes nothing in it.
"""

from __future__ import annotations

import re

from . import words
from .posix_tokens import CLOSING, Tokens
from .syntax import Block, Case, Chain, For, Function, If, Node, Not, Pipe, Script, Simple, While, Word
from .syntax import mark_alone as _mark_alone

_REDIRECT = {"<", ">", ">>", "<>", "<&", ">&", ">|", ">!", "&>", "&>>", "<<<", "<<", "<<-"}
#: `&|` and `&!` are zsh's ways of letting go of a job.
_BACKGROUND = {"&", "&|", "&!"}
_SEPARATORS = {";", "\n", *_BACKGROUND}


def parse(text: str, *, zsh: bool = False) -> Script:
    """The commands of `text`. Raises SyntaxProblem."""
    parser = _Parser(text, zsh=zsh)
    body = parser.block(())
    if parser.next is not None:
        raise parser.problem(f"{parser.shown()} without its beginning")
    _mark_alone(body)
    return Script(text, body, parser.line_starts)


class _Parser(Tokens):
    # Lists

    def block(self, closing: tuple[str, ...]) -> Block:
        """Commands up to one of `closing`, which is left to be read."""
        body = Block()
        while True:
            while isinstance(self.next, str) and self.next in _SEPARATORS:
                self.advance()
            # zsh: `if CONDITION {`. A brace where the condition begins is a group instead.
            group = self.keyword() == "{" and not body.items
            if self.next is None or (self.keyword() in closing and not group) or self.next in closing:
                if self.next is None and closing:
                    raise self.problem(f"'{closing[0]}' is missing at the end of the file")
                return body
            if self.keyword() in CLOSING or self.next in (")", ";;"):
                return body
            item = self.chain()
            background = self.next in _BACKGROUND
            body.items.append(Pipe([item]) if background else item)
            after = self.next in _SEPARATORS or self.next is None or self.next in closing
            if not after and self.keyword() not in (*closing, *CLOSING) and self.next not in (")", *_CASE_ENDS):
                raise self.problem(f"{self.shown()} after a command")

    def chain(self) -> Node:
        items: list[tuple[str, Node]] = [("", self.pipeline())]
        while self.next in ("&&", "||"):
            operator = str(self.next)
            self.advance()
            self.newlines()
            items.append((operator, self.pipeline()))
        return items[0][1] if len(items) == 1 else Chain(items)

    def pipeline(self) -> Node:
        turned = False
        while self.keyword() in ("!", "time", "coproc", "noglob", "nocorrect"):
            if self.keyword() == "!":
                turned = not turned
            self.advance()
        items = [self.command()]
        while self.next in ("|", "|&"):
            self.advance()
            self.newlines()
            items.append(self.command())
        node = items[0] if len(items) == 1 else Pipe(items)
        return Not(node) if turned else node

    # Commands

    def command(self) -> Node:
        node: Node
        word = self.keyword()
        if self.next == "(" and self.zsh and re.match(r"\([ \t]*\)[ \t]*\{", self.text[self.start :]):
            self.advance()
            self.expect(")")
            node = self.braces()  # an anonymous function runs at once
            while isinstance(self.next, Word):
                self.advance()
        elif self.next == "(":
            node = self.parenthesis()
        elif word in _COMPOUND:
            node = getattr(self, _COMPOUND[word])()
        elif word == "function":
            return self.function()
        else:
            return self.simple()
        while isinstance(self.next, str) and self.next in _REDIRECT:
            self.redirect()
        return node

    def parenthesis(self) -> Node:
        if self.text.startswith("((", self.start):
            end = words.skip_parentheses(self.text, self.start)
            node = Simple([Word(self.start, end, words.dynamic(self.text[self.start : end]))], self.line())
            self.at = end
            self.advance()
            return node
        self.advance()
        body = self.block((")",))
        self.expect(")")
        return Pipe([body])

    def braces(self) -> Node:
        self.advance()
        body = self.block(("}",))
        self.expect("}")
        if self.keyword() == "always":  # zsh
            self.advance()
            return Block([body, self.braces()])
        return body

    def if_(self) -> If:
        branches: list[tuple[Node | None, Block]] = []
        self.advance()
        while True:
            condition = self.block(("then", "{"))
            brace = self.keyword() == "{"
            self.advance()
            branches.append((condition, self.block(("}",) if brace else ("fi", "elif", "else"))))
            if brace:
                self.advance()
            if self.keyword() == "elif":
                self.advance()
                continue
            if self.keyword() == "else":
                self.advance()
                brace = self.keyword() == "{"
                if brace:
                    self.advance()
                branches.append((None, self.block(("}",) if brace else ("fi",))))
                self.expect("}" if brace else "fi")
            elif not brace:
                self.expect("fi")
            return If(branches)

    def for_(self) -> Node:
        items: list[Word] = []
        self.advance()
        if self.next == "(":
            self.at = words.skip_parentheses(self.text, self.start)
            self.advance()
            name = "_"
        else:
            if not isinstance(self.next, Word):
                raise self.problem("a variable is missing after 'for'")
            name = self.next.literal or "_"
            self.advance()
            while self.zsh and isinstance(self.next, Word) and self.keyword() not in ("in", "do", "{"):
                self.advance()
            self.newlines()
            if self.keyword() == "in":
                self.advance()
                while isinstance(self.next, Word):
                    items.append(self.next)
                    self.advance()
            elif self.at_operator("("):  # zsh
                self.advance()
                while isinstance(self.next, Word):
                    items.append(self.next)
                    self.advance()
                self.expect(")")
        return For(name, items, self.do())

    def do(self) -> Block:
        while self.next in (";", "\n"):
            self.advance()
        if self.keyword() == "{":
            self.advance()
            body = self.block(("}",))
            self.expect("}")
            return body
        if self.keyword() != "do" and self.zsh:
            return Block([self.chain()])
        self.expect("do")
        body = self.block(("done",))
        self.expect("done")
        return body

    def repeat(self) -> Node:
        """zsh: `repeat N`."""
        if not self.zsh:
            return self.simple()
        self.advance()
        self.advance()
        return For("_", [], self.do())

    def while_(self) -> While:
        until = self.keyword() == "until"
        self.advance()
        condition: Node = self.block(("do", "{"))
        return While(Not(condition) if until else condition, self.do())

    def case_(self) -> Case:
        self.advance()
        if not isinstance(self.next, Word):
            raise self.problem("a word is missing after 'case'")
        word = self.next
        self.advance()
        self.newlines()
        self.expect("in")
        items: list[tuple[list[Word], Block]] = []
        self.newlines()
        while self.keyword() != "esac":
            patterns = self.patterns()
            items.append((patterns, self.block(("esac", *_CASE_ENDS))))
            if self.keyword() != "esac":
                self.advance()
            self.newlines()
        self.expect("esac")
        return Case(word, items)

    def patterns(self) -> list[Word]:
        found = []
        if self.next == "(":
            self.advance()
        while isinstance(self.next, Word):
            found.append(self.next)
            self.advance()
            if self.at_operator("|"):
                self.advance()
        if self.next is None:
            raise self.problem("'esac' is missing at the end of the file")
        self.expect(")")
        return found

    def function(self) -> Function:
        line = self.line()
        self.advance()
        names = []
        while isinstance(self.next, Word) and self.keyword() != "{":
            names.append(self.next.literal or "")
            self.advance()
        if self.next == "(":
            self.advance()
            self.expect(")")
        return self.function_body(names, line)

    def function_body(self, names: list[str], line: int) -> Function:
        self.newlines()
        body = self.command()
        return Function(names, body if isinstance(body, Block) else Block([body]), line)

    def simple(self) -> Node:
        found: list[Word] = []
        line = self.line()
        while True:
            if isinstance(self.next, Word):
                if not found and self.next.keyword in CLOSING:
                    raise self.problem(f"{self.shown()} without its beginning")
                if not found and self.next.keyword == "[[":
                    return self.test(line)
                if found and self.zsh and self.next.keyword == "}":
                    break
                found.append(self.next)
                self.advance()
            elif isinstance(self.next, str) and self.next in _REDIRECT:
                self.redirect()
            elif self.next == "(" and len(found) == 1 and re.match(r"\([ \t]*\)", self.text[self.start :]):
                self.advance()
                self.expect(")")
                return self.function_body([found[0].literal or ""], line)
            else:
                break
        if not found:
            if self.next in _SEPARATORS or self.next in (None, "&&", "||", "|", ")"):
                return Block()
            raise self.problem(f"{self.shown()} where a command should be")
        return Simple(found, line)

    def test(self, line: int) -> Node:
        """`[[ … ]]`, where operators are words."""
        found: list[Word] = []
        while self.keyword() != "]]":
            if self.next is None:
                raise self.problem("']]' is missing at the end of the file")
            if isinstance(self.next, Word):
                found.append(self.next)
            elif self.next != "\n":
                found.append(Word(self.start, self.at, words.literal(str(self.next))))
            self.advance()
        assert isinstance(self.next, Word)  # noqa: S101 - keyword() said so
        found.append(self.next)
        self.advance()
        return Simple(found, line)

    def redirect(self) -> None:
        operator = self.next
        opened = self.start
        self.advance()
        if not isinstance(self.next, Word):
            if operator == ">&" or self.next in ("(",):
                return
            raise self.problem(f"a file is missing after '{operator}'")
        if operator in ("<<", "<<-"):
            raw = re.sub(r"[\\'\"]", "", self.text[self.next.start : self.next.end])
            self.heredocs.append((raw, operator == "<<-", opened))
        self.advance()


_CASE_ENDS = (";;", ";&", ";;&", ";|")
_COMPOUND = {
    "{": "braces",
    "if": "if_",
    "for": "for_",
    "select": "for_",
    "foreach": "for_",
    "while": "while_",
    "until": "while_",
    "case": "case_",
    "repeat": "repeat",
}
