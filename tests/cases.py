"""Test cases for the scripts here, with the summary line that doctest prints."""


class Cases:
    def __init__(self, suite):
        self.suite = suite
        self.passed = 0
        self.failed = 0

    def add(self, name, violations):
        """A case passes where it has no violations."""
        if violations:
            self.failed += 1
            print(f"FAILED: {name}", *violations, sep="\n  ", flush=True)
        else:
            self.passed += 1

    def summary(self):
        """Prints the counts; returns the process's exit status."""
        total = self.passed + self.failed
        print(f"[{self.suite}] test cases: {total} | {self.passed} passed | {self.failed} failed | 0 skipped")
        return 1 if self.failed else 0
