// SPDX-License-Identifier: GPL-2.0-only
/*
 * Observes and disturbs the WireGuard messages on one interface: a tc program for each direction.
 *
 * Each frame is assigned to one class and counted. Whatever is neither a well-formed WireGuard
 * message between the tunnel's ports nor the link's own traffic (ARP, ND, MLD, ICMP errors) is a
 * stranger: it is counted and passed to user space. Rules then say what happens to the n-th
 * message of a class.
 *
 * The map layouts are those of src/harness/bpf/underlay.rs. Message sizes and layouts: WireGuard
 * whitepaper, section 5.4.
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

/* Marks of the frames that user space injects, and of those to be dropped. */
#define MARK_OUT 0x57475253 /* let it pass */
#define MARK_IN 0x57475254  /* redirect to ingress */
#define MARK_LOST 0x57475255 /* drop */

enum { OUT, IN };

/* Classes, in the order of `Class`. */
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

/* Why a frame is a stranger, in the order of `Reason`. */
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

/* The action of a rule, in the order of `Action`. */
enum { COUNT, DROP, DUPLICATE, HOLD, CORRUPT };

struct counts {
	__u64 frames[CLASSES];
	__u64 bytes[CLASSES]; /* UDP payload of messages, whole frames otherwise */
};

struct rule {
	__u64 first;  /* index of the first message to act on, from 0 */
	__u64 every;  /* step: 1 for each message */
	__u64 times;  /* act at most this often */
	__u64 seen;
	__u64 hits;
	__u32 classes; /* bit mask; 0: not in use */
	__s32 offset;  /* CORRUPT: offset into the message; if negative, from its end */
	__u8 direction;
	__u8 action;
	__u8 mask;
	__u8 pad[5];
};

struct event {
	__u64 ns;
	__u32 held; /* 1: held by a rule; 0: a stranger */
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

/* The tunnel's inner addresses, network order; IPv4 as ::ffff:a.b.c.d. */
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

/* Events for which the ring buffer had no room. */
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
	__u32 full; /* length of transport data that fills the MTU */
	__u32 class; /* of the current message */
	__u32 len;
	__u32 at;     /* of the current message */
	__u32 left;   /* bytes from there to the end */
	__u32 size;   /* gso_size, or the length of the only message */
	__u32 action; /* the first other than COUNT */
	__u32 stranger;
	__u32 reason;
};

static __always_inline int is_tunnel_port(__u16 port)
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

/* Transport data whose inner IP header is readable is not encrypted. */
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
static __always_inline int classify_message(struct frame *f, __u32 len)
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

/* Applies rule `n` to the current message. */
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

/* Handles the next message. */
static long next_message(__u32 n, void *context)
{
	struct frame *f = context;

	f->len = f->left < f->size ? f->left : f->size;
	if (!f->len)
		return 1;
	f->class = classify_message(f, f->len);
	count(f, f->class, f->len);
	if (f->class < NEIGHBOUR)
		bpf_loop(MAX_RULES, apply, f, 0);
	f->at += f->len;
	f->left -= f->len;
	return 0;
}

/* The class of a frame without WireGuard messages; -1 if f->at holds the first message. */
static __always_inline int classify_frame(struct frame *f)
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
		/* Hop-by-hop options occur in multicast listener reports only. */
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

		/* An ICMP error about one of our packets (a closed port, say), not an echo. */
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
	if (!is_tunnel_port(bpf_ntohs(udp[0])) || !is_tunnel_port(bpf_ntohs(udp[1])))
		return stranger(f, PORTS);
	/* No trailing bytes: the receiver would not notice them, but they would leak. */
	if (skb->len < start + UDP_LEN || skb->len != end ||
	    bpf_ntohs(udp[2]) != end - start)
		return stranger(f, LENGTH);
	f->at = start + UDP_LEN;
	f->left = skb->len - f->at;
	f->size = skb->gso_size ? skb->gso_size : f->left;
	return f->left ? -1 : stranger(f, LENGTH);
}

static __always_inline int submit_event(struct frame *f, __u32 held)
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

/* Drops in transit, not at the source: the sender sees no error. */
static __always_inline int drop_in_transit(struct __sk_buff *skb, __u32 direction)
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
	class = classify_frame(&f);
	if (class >= 0)
		count(&f, class, skb->len);
	else
		bpf_loop(MAX_SEGMENTS, next_message, &f, 0);
	if (f.stranger)
		submit_event(&f, 0);
	switch (f.action) {
	case DROP:
		return drop_in_transit(skb, direction);
	case DUPLICATE:
		skb->mark = MARK_OUT;
		bpf_clone_redirect(skb, skb->ifindex, direction == IN ? BPF_F_INGRESS : 0);
		skb->mark = mark;
		return TC_ACT_OK;
	case HOLD:
		/* If there is no room to keep the frame, let it pass: `lost` tells user space. */
		return submit_event(&f, 1) ? drop_in_transit(skb, direction) : TC_ACT_OK;
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
