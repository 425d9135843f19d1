"""A command that serves a page, as a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping


class Served:
    """`forgetfilter ARGUMENTS`, from the address it prints on stdout on."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the command)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forgetfilter", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=self._said, text=True,
        )  # fmt: skip
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()  # all that stdout gets
        self.port = int(self.url.split(":")[2].split("/")[0])
        self.token = self.url.partition("#")[2]

    def ask(
        self, path: str, body: object = None, *, method: str = "POST", **headers: str
    ) -> tuple[int, dict | str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"authorization": f"Bearer {self.token}", **headers}
        connection.request(method, path, json.dumps(body or {}), sent)
        reply = connection.getresponse()
        text = reply.read().decode()
        self.headers = dict(reply.headers)
        connection.close()
        return reply.status, json.loads(text) if "json" in (reply.getheader("content-type") or "") else text

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)

    def end(self) -> str:
        """Stops it if it runs still; what it said on stderr."""
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout and self.process.stdout.read() == ""
        self._said.seek(0)
        return self._said.read()
