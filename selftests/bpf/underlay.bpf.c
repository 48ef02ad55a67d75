// SPDX-License-Identifier: GPL-2.0
/*
 * Watches and disturbs the WireGuard messages on one interface: a tc program for each direction.
 *
 * Every frame is put into one class and counted. What is neither a well-formed WireGuard message
 * between the tunnel's ports nor the link's own talk is a stranger: it is counted and shown to
 * user space. Rules then say what happens to the n-th message of a type.
 *
 * The layouts of the maps are those of src/harness/bpf/underlay.rs. Message sizes and layouts:
 * WireGuard whitepaper, section 5.4.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MAX_RULES 8
#define MAX_SEGMENTS 128
#define SNAP 2048
#define ETH_LEN 14
#define UDP_LEN 8

/* Marks of the frames that user space injects. */
#define MARK_OUT 0x57475253 /* leave it alone */
#define MARK_IN 0x57475254  /* it is to come in here */
#define MARK_LOST 0x57475255 /* drop it */

enum { OUT, IN };

/* Classes. Order as in `Class`. */
enum {
	INITIATION,
	RESPONSE,
	COOKIE,
	DATA,
	KEEPALIVE,
	NEIGHBOUR,
	ICMP_ERROR,
	STRANGER,
	CLASSES,
};

/* What is wrong with a stranger. Order as in `Reason`. */
enum {
	NOT_IP,
	FRAGMENT,
	NOT_UDP,
	PORTS,
	TYPE,
	RESERVED,
	LENGTH,
	PADDING,
	INNER,
};

/* What a rule does. Order as in `Action`. */
enum { COUNT, DROP, DUPLICATE, HOLD, CORRUPT };

struct counts {
	__u64 frames[CLASSES];
	__u64 bytes[CLASSES]; /* UDP payload of messages, whole frames otherwise */
};

struct rule {
	__u64 first;  /* index of the first message that is hit, from 0 */
	__u64 every;  /* and then each so many-th */
	__u64 times;  /* at most so many hits */
	__u64 seen;
	__u64 hits;
	__u32 classes; /* bit mask; 0: not in use */
	__s32 offset;  /* CORRUPT: into the message, negative from its end */
	__u8 direction;
	__u8 action;
	__u8 mask;
	__u8 pad[5];
};

struct event {
	__u64 ns;
	__u32 held; /* 1: taken out by a rule; 0: a stranger */
	__u32 direction;
	__u32 reason;
	__u32 len; /* of the whole frame */
	__u8 data[SNAP];
};

/* The tunnel's UDP ports, host order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u16);
	__type(value, __u8);
} ports SEC(".maps");

/* The tunnel's inside addresses, network order; IPv4 as ::ffff:a.b.c.d. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32[4]);
	__type(value, __u8);
} inner SEC(".maps");

/* The tunnel's MTU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} mtu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Events that found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

struct frame {
	struct __sk_buff *skb;
	__u32 direction;
	__u32 v6;
	__u32 full; /* the greatest length of transport data */
	__u32 class; /* of the present message */
	__u32 len;
	__u32 at;     /* of the present message */
	__u32 left;   /* bytes from there to the end */
	__u32 size;   /* of all but the last message in an aggregate; else that of the only one */
	__u32 action; /* the first that is not COUNT */
	__u32 stranger;
	__u32 reason;
};

static __always_inline int known(__u16 port)
{
	return !!bpf_map_lookup_elem(&ports, &port);
}

static __always_inline int inner4(__u32 address)
{
	__u32 key[4] = { 0, 0, bpf_htonl(0xffff), address };

	return !!bpf_map_lookup_elem(&inner, key);
}

static __always_inline int inner6(const __u32 *address)
{
	__u32 key[4] = { address[0], address[1], address[2], address[3] };

	return !!bpf_map_lookup_elem(&inner, key);
}

/* Transport data in which an inner header can be read is not encrypted. */
static __always_inline int readable(struct frame *f)
{
	__u64 ip[5]; /* a whole IPv6 header */

	if (bpf_skb_load_bytes(f->skb, f->at + 16, ip, sizeof(ip)))
		return 0;
	const __u8 *b = (const __u8 *)ip;
	const __u32 *w = (const __u32 *)ip;

	if (b[0] >> 4 == 4)
		return inner4(w[3]) && inner4(w[4]);
	if (b[0] >> 4 == 6)
		return inner6(w + 2) && inner6(w + 6);
	return 0;
}

static __always_inline int stranger(struct frame *f, __u32 reason)
{
	f->stranger = 1;
	f->reason = reason;
	return STRANGER;
}

/* The class of the UDP payload of `len` bytes at f->at. */
static __always_inline int message(struct frame *f, __u32 len)
{
	__u8 h[4];

	if (bpf_skb_load_bytes(f->skb, f->at, h, sizeof(h)))
		return stranger(f, LENGTH);
	if (h[0] < 1 || h[0] > 4)
		return stranger(f, TYPE);
	if (h[1] | h[2] | h[3])
		return stranger(f, RESERVED);
	switch (h[0]) {
	case 1:
		return len == 148 ? INITIATION : stranger(f, LENGTH);
	case 2:
		return len == 92 ? RESPONSE : stranger(f, LENGTH);
	case 3:
		return len == 64 ? COOKIE : stranger(f, LENGTH);
	}
	if (len < 32)
		return stranger(f, LENGTH);
	if (len % 16 && len != f->full)
		return stranger(f, PADDING);
	if (readable(f))
		return stranger(f, INNER);
	return len == 32 ? KEEPALIVE : DATA;
}

static __always_inline void count(struct frame *f, __u32 class, __u32 len)
{
	struct counts *c = bpf_map_lookup_elem(&counts, &f->direction);

	if (!c || class >= CLASSES)
		return;
	__sync_fetch_and_add(&c->frames[class], 1);
	__sync_fetch_and_add(&c->bytes[class], len);
}

static __always_inline void corrupt(struct frame *f, const struct rule *r)
{
	__u32 at = r->offset < 0 ? f->len + r->offset : r->offset;
	__u8 byte;

	if (at >= f->len || bpf_skb_load_bytes(f->skb, f->at + at, &byte, 1))
		return;
	byte ^= r->mask;
	bpf_skb_store_bytes(f->skb, f->at + at, &byte, 1, 0);
}

/* Asks rule `n` about the present message. */
static long apply(__u32 n, void *context)
{
	struct frame *f = context;
	struct rule *r = bpf_map_lookup_elem(&rules, &n);
	__u64 seen;

	if (!r || r->direction != f->direction || !(r->classes >> f->class & 1))
		return 0;
	seen = __sync_fetch_and_add(&r->seen, 1);
	if (seen < r->first || !r->every)
		return 0;
	seen -= r->first;
	if (seen % r->every || seen / r->every >= r->times)
		return 0;
	__sync_fetch_and_add(&r->hits, 1);
	if (r->action == CORRUPT)
		corrupt(f, r);
	else if (!f->action)
		f->action = r->action;
	return 0;
}

/* Takes the next message. */
static long one(__u32 n, void *context)
{
	struct frame *f = context;

	f->len = f->left < f->size ? f->left : f->size;
	if (!f->len)
		return 1;
	f->class = message(f, f->len);
	count(f, f->class, f->len);
	if (f->class < NEIGHBOUR)
		bpf_loop(MAX_RULES, apply, f, 0);
	f->at += f->len;
	f->left -= f->len;
	return 0;
}

/* The class of a frame without WireGuard messages, or -1 if it has some: f says where. */
static __always_inline int outside(struct frame *f)
{
	struct __sk_buff *skb = f->skb;
	__u64 ip[5];
	__u8 *b = (__u8 *)ip;
	__u32 *w = (__u32 *)ip;
	__u16 *h = (__u16 *)ip;
	__u16 udp[4];
	__u32 protocol, start, end;

	if (skb->protocol == bpf_htons(0x0806))
		return NEIGHBOUR;
	if (skb->protocol == bpf_htons(0x0800)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, ip, 20))
			return stranger(f, NOT_IP);
		if (inner4(w[3]) || inner4(w[4]))
			return stranger(f, INNER);
		if (h[3] & bpf_htons(0x3fff))
			return stranger(f, FRAGMENT);
		protocol = b[9];
		start = ETH_LEN + (b[0] & 15) * 4;
		end = ETH_LEN + bpf_ntohs(h[1]);
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, ip, 40))
			return stranger(f, NOT_IP);
		if (inner6(w + 2) || inner6(w + 6))
			return stranger(f, INNER);
		protocol = b[6];
		/* Hop-by-hop options come with multicast listener reports only. */
		if (protocol == 0)
			return NEIGHBOUR;
		if (protocol == 44)
			return stranger(f, FRAGMENT);
		start = ETH_LEN + 40;
		end = start + bpf_ntohs(h[2]);
		f->v6 = 1;
	} else {
		return stranger(f, NOT_IP);
	}
	if (bpf_skb_load_bytes(skb, start, udp, sizeof(udp)))
		return stranger(f, NOT_UDP);
	if (!f->v6 && protocol == 1) {
		__u8 type = *(__u8 *)udp;

		/* An error message about one of ours, as when a port is closed; no echo. */
		return type == 3 || type == 11 ? ICMP_ERROR : stranger(f, NOT_UDP);
	}
	if (f->v6 && protocol == 58) {
		__u8 type = *(__u8 *)udp;

		if ((type >= 130 && type <= 137) || type == 143)
			return NEIGHBOUR;
		return type < 128 ? ICMP_ERROR : stranger(f, NOT_UDP);
	}
	if (protocol != 17)
		return stranger(f, NOT_UDP);
	if (!known(bpf_ntohs(udp[0])) || !known(bpf_ntohs(udp[1])))
		return stranger(f, PORTS);
	/* Nothing may follow the datagram: unnoticed by the receiver, it would leave all the same. */
	if (skb->len < start + UDP_LEN || skb->len != end || bpf_ntohs(udp[2]) != end - start)
		return stranger(f, LENGTH);
	f->at = start + UDP_LEN;
	f->left = skb->len - f->at;
	f->size = skb->gso_size ? skb->gso_size : f->left;
	return f->left ? -1 : stranger(f, LENGTH);
}

static __always_inline int show(struct frame *f, __u32 held)
{
	__u32 zero = 0, len = f->skb->len;
	struct event *e;

	if (held && len > SNAP)
		goto lost;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		goto lost;
	e->ns = bpf_ktime_get_ns();
	e->held = held;
	e->direction = f->direction;
	e->reason = f->reason;
	e->len = len;
	if (len > SNAP)
		len = SNAP;
	if (len < 1 || bpf_skb_load_bytes(f->skb, 0, e->data, len)) {
		bpf_ringbuf_discard(e, 0);
		goto lost;
	}
	bpf_ringbuf_submit(e, 0);
	return 1;
lost:;
	__u64 *n = bpf_map_lookup_elem(&lost, &zero);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

/* Drops a frame on the way, not at its start: whoever sent it is not told. */
static __always_inline int lose(struct __sk_buff *skb, __u32 direction)
{
	if (direction == IN)
		return TC_ACT_SHOT;
	skb->mark = MARK_LOST;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int handle(struct __sk_buff *skb, __u32 direction)
{
	struct frame f = { .skb = skb, .direction = direction };
	__u32 zero = 0, mark = skb->mark;
	__u64 *tunnel = bpf_map_lookup_elem(&mtu, &zero);
	int class;

	if (!tunnel)
		return TC_ACT_OK;
	f.full = *tunnel + 32;
	class = outside(&f);
	if (class >= 0)
		count(&f, class, skb->len);
	else
		bpf_loop(MAX_SEGMENTS, one, &f, 0);
	if (f.stranger)
		show(&f, 0);
	switch (f.action) {
	case DROP:
		return lose(skb, direction);
	case DUPLICATE:
		skb->mark = MARK_OUT;
		bpf_clone_redirect(skb, skb->ifindex, direction == IN ? BPF_F_INGRESS : 0);
		skb->mark = mark;
		return TC_ACT_OK;
	case HOLD:
		/* A frame that cannot be kept is not lost: it goes on, and user space is told. */
		return show(&f, 1) ? lose(skb, direction) : TC_ACT_OK;
	}
	return TC_ACT_OK;
}

SEC("tcx/egress")
int leaving(struct __sk_buff *skb)
{
	if (skb->mark == MARK_OUT) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	if (skb->mark == MARK_LOST)
		return TC_ACT_SHOT;
	if (skb->mark == MARK_IN)
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	return handle(skb, OUT);
}

SEC("tcx/ingress")
int arriving(struct __sk_buff *skb)
{
	if (skb->mark == MARK_OUT || skb->mark == MARK_IN) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	return handle(skb, IN);
}
