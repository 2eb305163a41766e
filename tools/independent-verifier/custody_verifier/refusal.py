"""What is wrong, as a code of docs/formats/codes.md."""

UNDECIDED = {"KEY_UNAVAILABLE", "GATE_UNAVAILABLE", "STORE_CORRUPT", "STORE_ROLLBACK", "STORE_FULL", "STORE_LOCKED"}


class Refusal(Exception):
    """One finding: its code, and the place and what was found in words."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} {detail}".rstrip())
        self.code = code
        self.detail = detail
