"""A load in threads, for tests that do something to the fleet meanwhile."""

import threading

from cluster import wait_until


class Load:
    """Each of `count` threads calls ask(index, turn) without a pause until the load is left; one that
    raises AssertionError ends its thread, and the test with it."""

    def __init__(self, count):
        self.answers = 0
        self._errors = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(index,), daemon=True)
                         for index in range(count)]

    def ask(self, index, turn):
        """True counts as an answer."""
        raise NotImplementedError

    def _run(self, index):
        turn = 0
        while not self._over.is_set():
            turn += 1
            try:
                answered = self.ask(index, turn)
            except AssertionError as error:
                self._errors.append(error)
                return
            with self._lock:
                self.answers += bool(answered)

    def wait_for(self, answers):
        """So many more."""
        wanted = self.answers + answers
        wait_until(lambda: self._errors or self.answers >= wanted, 120, f"{answers} answers")

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors and kind is None:
            raise self._errors[0]
