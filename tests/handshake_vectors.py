#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Writes src/proto/vectors.rs: a recorded handshake, from fixed keys.

Derived from the text of the WireGuard whitepaper (section 5.4) alone, with nothing but Python's
standard library: BLAKE2s and HMAC come from it, X25519 and (X)ChaCha20-Poly1305 are written here
from RFC 7748, RFC 8439 and draft-irtf-cfrg-xchacha, and checked against their test vectors. So it
shares no code with what it tests.

    python3 tests/handshake_vectors.py > src/proto/vectors.rs
"""

import hashlib
import hmac
import struct


def x25519(scalar, point):
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = (k[31] & 127) | 64
    k = int.from_bytes(k, "little")
    p = 2**255 - 19
    x1 = (int.from_bytes(point, "little") & (2**255 - 1)) % p
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def rounds(s):
    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            v = s[z] ^ s[x]
            s[z] = (v << n | v >> (32 - n)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)


def chacha_state(key, tail):
    return list(struct.unpack("<16I", b"expand 32-byte k" + key + tail))


def chacha_block(key, counter, nonce):
    start = chacha_state(key, struct.pack("<I", counter) + nonce)
    s = list(start)
    rounds(s)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(s, start)))


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    acc = 0
    for i in range(0, len(data), 16):
        acc = (acc + int.from_bytes(data[i : i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((acc + int.from_bytes(key[16:], "little")) & (2**128 - 1)).to_bytes(16, "little")


def seal(key, nonce, plain, ad):
    stream = b"".join(chacha_block(key, i + 1, nonce) for i in range((len(plain) + 63) // 64))
    cipher = bytes(a ^ b for a, b in zip(plain, stream))
    pad = lambda b: b + bytes(-len(b) % 16)
    macked = pad(ad) + pad(cipher) + struct.pack("<QQ", len(ad), len(cipher))
    return cipher + poly1305(chacha_block(key, 0, nonce)[:32], macked)


def xseal(key, nonce, plain, ad):
    s = chacha_state(key, nonce[:16])
    rounds(s)
    return seal(struct.pack("<8I", *(s[:4] + s[12:])), bytes(4) + nonce[16:], plain, ad)


def self_check():
    base = bytes([9]) + bytes(31)
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert x25519(alice, base).hex() == (
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    key = bytes(range(0x80, 0xA0))
    text = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for "
            b"the future, sunscreen would be it.")
    ad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    nonce = bytes.fromhex("070000004041424344454647")
    assert seal(key, nonce, text, ad)[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    tag = xseal(key, bytes(range(0x40, 0x58)), text, ad)[-16:]
    assert tag.hex() == "c0875924c1c7987947deafd8780acf49"


# The functions of section 5.4, by the names they have there.
def HASH(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def MAC(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def HMAC(key, data):
    return hmac.new(key, data, hashlib.blake2s).digest()


def KDF(n, key, data):
    t0 = HMAC(key, data)
    out = [b""]
    for i in range(n):
        out.append(HMAC(t0, out[-1] + bytes([i + 1])))
    return out[1:]


def AEAD(key, counter, plain, ad):
    return seal(key, struct.pack("<IQ", 0, counter), plain, ad)


def DH(private, public):
    return x25519(private, public)


def pub(private):
    return x25519(private, bytes([9]) + bytes(31))


def fixed(label):
    return hashlib.sha256(b"wireguard_rs handshake vector: " + label).digest()


def main():
    self_check()
    out = {}
    si, sr, ei, er = (fixed(l) for l in (b"Si", b"Sr", b"Ei", b"Er"))
    Spub_i, Spub_r, Epub_i, Epub_r = map(pub, (si, sr, ei, er))
    psk = fixed(b"Q")
    Ii, Ir = 0x11223344, 0xAABBCCDD
    secs, nanos = 1700000000, 123456789
    timestamp = struct.pack(">QI", 0x400000000000000A + secs, nanos & ~0xFFFFFF)
    out.update(INITIATOR_PRIVATE=si, RESPONDER_PRIVATE=sr, INITIATOR_PUBLIC=Spub_i,
               RESPONDER_PUBLIC=Spub_r, INITIATOR_EPHEMERAL=ei, RESPONDER_EPHEMERAL=er, PSK=psk,
               TIMESTAMP=timestamp)

    # 5.4.2, first message
    C = HASH(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    H = HASH(C, b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    H = HASH(H, Spub_r)
    [C] = KDF(1, C, Epub_i)
    H = HASH(H, Epub_i)
    C, k = KDF(2, C, DH(ei, Spub_r))
    static = AEAD(k, 0, Spub_i, H)
    H = HASH(H, static)
    C, k = KDF(2, C, DH(si, Spub_r))
    stamp = AEAD(k, 0, timestamp, H)
    H = HASH(H, stamp)
    body = b"\1\0\0\0" + struct.pack("<I", Ii) + Epub_i + static + stamp
    mac1 = MAC(HASH(b"mac1----", Spub_r), body)
    out["INITIATION"] = body + mac1 + bytes(16)
    C1, H1 = C, H

    # 5.4.7, cookie reply to the first message, and the first message with its cookie
    secret, nonce = fixed(b"Rm"), fixed(b"nonce")[:24]
    cookie = MAC(secret, bytes([192, 0, 2, 7]) + struct.pack(">H", 51820))
    out["COOKIE_SECRET"], out["COOKIE_NONCE"] = secret, nonce
    out["COOKIE_REPLY"] = (b"\3\0\0\0" + struct.pack("<I", Ii) + nonce
                           + xseal(HASH(b"cookie--", Spub_r), nonce, cookie, mac1))
    out["INITIATION_WITH_COOKIE"] = body + mac1 + MAC(cookie, body + mac1)

    # 5.4.3, second message, with and without a preshared key
    for name, Q in (("", bytes(32)), ("_PSK", psk)):
        C, H = C1, H1
        [C] = KDF(1, C, Epub_r)
        H = HASH(H, Epub_r)
        [C] = KDF(1, C, DH(er, Epub_i))
        [C] = KDF(1, C, DH(er, Spub_i))
        C, t, k = KDF(3, C, Q)
        H = HASH(H, t)
        empty = AEAD(k, 0, b"", H)
        H = HASH(H, empty)
        body = b"\2\0\0\0" + struct.pack("<II", Ir, Ii) + Epub_r + empty
        out["RESPONSE" + name] = body + MAC(HASH(b"mac1----", Spub_i), body) + bytes(16)
        # 5.4.5
        send_i, send_r = KDF(2, C, b"")
        out["INITIATOR_SENDS" + name], out["RESPONDER_SENDS" + name] = send_i, send_r

    print("// SPDX-License-Identifier: GPL-2.0-only\n")
    print("//! A recorded handshake. Written by `tests/handshake_vectors.py`; do not edit.\n")
    print(f"pub const INITIATOR_INDEX: u32 = {Ii:#x};\npub const RESPONDER_INDEX: u32 = {Ir:#x};")
    print(f"pub const SECONDS: i64 = {secs};\npub const NANOSECONDS: u32 = {nanos};")
    for name, value in out.items():
        print(f"#[rustfmt::skip]\npub const {name}: [u8; {len(value)}] = [")
        for i in range(0, len(value), 16):
            print("    " + " ".join(f"0x{b:02x}," for b in value[i : i + 16]))
        print("];")


if __name__ == "__main__":
    main()
