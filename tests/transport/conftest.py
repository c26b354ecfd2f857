"""A certificate for localhost, and both sides' TLS settings."""

import ssl

import pytest
import trustme


class Certificate:
    """``cert`` and ``key`` are files for a listener; ``client`` trusts them."""

    def __init__(self, folder):
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.cert.write_bytes(chain)
        issued.private_key_pem.write_to_path(self.key)
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def client(self, *alpn):
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    @property
    def config(self):
        return {"cert": str(self.cert), "key": str(self.key)}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return Certificate(tmp_path_factory.mktemp("tls"))
