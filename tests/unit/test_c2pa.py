"""C2PA manifests, signed here and now: read, checked, and found altered."""

from __future__ import annotations

import datetime
import io
import sys

import pytest

from retrieval_detect.images.provenance import read_provenance
from tests.tagged import chunk, png_with, saved

c2pa = pytest.importorskip("c2pa", reason="the extra [c2pa] is not installed")
x509 = pytest.importorskip("cryptography.x509", reason="cryptography makes the certificates")

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "AVIF": "image/avif"}
CREATED = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    "softwareAgent": {"name": "Model X"},
}
MANIFEST = {
    "claim_generator_info": [{"name": "Test tool", "version": "1.0"}],
    "title": "a picture",
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [CREATED]}}],
}


def certificate(name, issuer=None):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test Org"),
        ]
    )
    parent, parent_key = issuer or (None, key)
    now = datetime.datetime.now(datetime.UTC)
    root = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if root else parent.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, *[False] * 4, root, root, False, False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(parent_key.public_key()), critical=False
        )
    )
    if not root:
        usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(parent_key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def sign():
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    root = certificate("root")
    leaf, key = certificate("leaf", root)
    chain = leaf.public_bytes(Encoding.PEM) + root[0].public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=secret, ta_url=None)

    def signed(format_):
        out = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(MANIFEST) as builder:
            builder.sign(signer, MIME[format_], io.BytesIO(saved(format_)), out)
        return out.getvalue()

    return signed


@pytest.mark.parametrize("format_", MIME)
def test_a_signed_file_declares_what_made_it(sign, format_):
    found = read_provenance(sign(format_))
    assert found.c2pa["state"] == "Valid" and found.c2pa["claim_generator"] == "Test tool 1.0"
    assert found.c2pa["problems"] == ["signingCredential.untrusted"] and found.c2pa["signer"] == "Test Org"
    assert found.c2pa["actions"] == [
        {"action": "c2pa.created", "software": "Model X", "digital_source_type": "trainedAlgorithmicMedia"}
    ]
    declared, manifest = found.claims
    assert declared.says == "declares itself made by a generator"
    assert manifest.says == "C2PA manifest of Test tool 1.0 signed by Test Org"
    assert not declared.trusted and "anybody can sign" in declared.detail


def test_an_altered_file_is_found_out(sign):
    data = bytearray(sign("JPEG"))
    data[-100] ^= 1
    found = read_provenance(bytes(data))
    assert found.c2pa["state"] == "Invalid" and "assertion.dataHash.mismatch" in found.c2pa["problems"]
    assert not any(claim.trusted for claim in found.claims)
    assert all("does not hold" in claim.detail for claim in found.claims)


def test_a_manifest_is_seen_without_the_package(sign, monkeypatch):
    data = sign("PNG")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_provenance(data)
    assert found.c2pa["state"] == "not read"
    assert [claim.says for claim in found.claims] == [
        "C2PA manifest: present, not read (pip install 'retrieval-detect[c2pa]')"
    ]


def test_a_broken_manifest_is_damaged():
    found = read_provenance(png_with(chunk(b"caBX", b"nonsense")))
    assert found.c2pa["state"] == "damaged"
    assert [claim.detail for claim in found.claims] == ["it cannot be read"]


def test_without_a_manifest_the_package_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert read_provenance(saved("JPEG")).c2pa is None
