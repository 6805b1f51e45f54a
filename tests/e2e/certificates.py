"""Certificates for tests, made by openssl: a CA, and what it signs."""

import pathlib
import subprocess
import tempfile


class Authority:
    """A CA in a directory of its own. `ca` is its certificate."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="baton-certificates-")
        self.path = pathlib.Path(self._directory.name)
        self.ca = self.path / "ca.crt"
        self._openssl("req", "-x509", *self._new_key("ca"), "-days", "2", "-subj", "/CN=test CA",
                      "-out", self.ca)

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def _new_key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                self.path / f"{name}.key"]

    def issue(self, name, alternative="IP:127.0.0.1,DNS:localhost"):
        """(certificate, key) of `name`, for these addresses and names."""
        request, extensions = self.path / f"{name}.csr", self.path / f"{name}.ext"
        certificate, key = self.path / f"{name}.crt", self.path / f"{name}.key"
        extensions.write_text(f"subjectAltName={alternative}\n")
        self._openssl("req", *self._new_key(name), "-subj", f"/CN={name}", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey",
                      self.path / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", extensions,
                      "-out", certificate)
        return certificate, key

    def close(self):
        self._directory.cleanup()
