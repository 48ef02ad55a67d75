// SPDX-License-Identifier: GPL-2.0-only

#include <crypto/blake2s.h>
#include <crypto/utils.h>

__rust_helper void rust_helper_wg_blake2s_init(struct blake2s_ctx *ctx, size_t outlen)
{
	blake2s_init(ctx, outlen);
}

__rust_helper void rust_helper_wg_blake2s(const u8 *key, size_t keylen, const u8 *in, size_t inlen,
					  u8 *out, size_t outlen)
{
	blake2s(key, keylen, in, inlen, out, outlen);
}

__rust_helper bool rust_helper_wg_crypto_equal(const void *a, const void *b, size_t len)
{
	return !crypto_memneq(a, b, len);
}
