/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * call_id.h: the Call-ID of a datagram of SIP, which names the template of a service with the
 * persistence engine sip (ip_vs_pe_sip.c, nf_conntrack_sip.c).
 *
 * It is looked for as the kernel does: at the beginning of a line that is not the first and goes
 * on none before, "Call-ID" in any case, or "i" with no letter behind it; blanks, a colon, blanks, in which a line may
 * end if the next one begins with a blank; a word, or two with @ between; the end of a line. Whoever
 * says "Call-ID" and no word goes on looking, from so far behind the word as that was from
 * where the search had begun.
 *
 * What was found lies in call_searches, for the rest of the packet's way; the packet keeps its
 * hash. The Call-ID of a template lies in call_ids, by the template's slot, and the hash is
 * the client's port of the template, of which it else has none: so it says whether it has a
 * Call-ID, and templates of one client with many are spread over the table.
 */
#ifndef FAIRLEAD_CALL_ID_H
#define FAIRLEAD_CALL_ID_H

#include "conn.h"
#include "hash.h"
#include "maps.h"
#include "packet.h"

enum {
	CALL_ID_WORDS = sizeof(struct call_id) / sizeof(__u64),
	SEARCHED_MASK = CALL_ID_SEARCHED - 1,
};

/* What of a datagram is searched, and what was found there. */
struct call_search {
	struct call_id found;
	/* A header's name is read as a whole, wherever it begins. */
	__u8 text[CALL_ID_SEARCHED + sizeof(__u64)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call_search);
} call_searches SEC(".maps");

/* What the next byte may be. */
enum expected {
	EXPECT_LINE_END,
	EXPECT_LINE_FEED,	/* or the beginning of a line */
	EXPECT_NAME,
	EXPECT_COLON,		/* or blanks before it */
	EXPECT_VALUE,		/* or blanks before it */
	EXPECT_WORD,		/* what of it is still to come */
	EXPECT_HOST,
	EXPECT_HOST_END,
	CALL_ID_FOUND,
	CALL_ID_REFUSED,
};

/* How far blanks have gone. */
enum blanks {
	BLANKS,
	BLANKS_LINE_FEED,	/* or the next line */
	BLANKS_NEXT_LINE,	/* which has to begin with one */
	BLANKS_IN_NEXT_LINE,	/* and ends them */
};

struct call_reader {
	struct call_search *search;
	enum expected expected;
	enum blanks blanks;
	__u32 size;		/* bytes of the text */
	__u32 next;		/* the byte to be read */
	__u32 origin;		/* from where the header was looked for */
	__u32 value;		/* where the header's begins */
};

static __always_inline bool is_blank(__u8 byte)
{
	return byte == ' ' || byte == '\t';
}

static __always_inline bool ends_line(__u8 byte)
{
	return byte == '\r' || byte == '\n';
}

/* The kernel's letters are Latin-1's. */
static __always_inline bool is_letter(__u8 byte)
{
	if (byte >= 0xc0)
		return byte != 0xd7 && byte != 0xf7;
	byte |= 0x20;
	return byte >= 'a' && byte <= 'z';
}

/* What a word has (RFC 3261, 25.1), and the kernel's letters. */
static __always_inline bool is_of_word(__u8 byte)
{
	__u64 set = 0;

	if (byte >= 0xc0)
		return is_letter(byte);
	if (byte < 64)
		set = 0xd7ffefa600000000;
	else if (byte < 128)
		set = 0x6fffffffbffffffe;
	return set >> (byte & 63) & 1;
}

/* How long the name of the header is that begins at a byte; 0: it is another. */
static __always_inline __u32 name_length(const struct call_reader *reader, __u32 at)
{
	static const __u64 upper_case = 0x00dfdfffdfdfdfdf, name = 0x0044492d4c4c4143; /* CALL-ID */
	const __u8 *text = reader->search->text + (at & SEARCHED_MASK);
	__u32 left = reader->size - at;

	if (left >= 7 && (*(const __u64 *)text & upper_case) == name)
		return 7;
	if (left >= 2 && (text[0] | 0x20) == 'i' && !is_letter(text[1]))
		return 1;
	return 0;
}

/* How many bytes there are before the next that ends a line, of eight that begin at a byte. */
static __always_inline __u32 bytes_in_line(const struct call_reader *reader, __u32 at)
{
	static const __u64 each = 0x0101010101010101;
	const __u8 *text = reader->search->text + (at & SEARCHED_MASK);
	__u64 word = *(const __u64 *)text, cr = word ^ each * '\r', lf = word ^ each * '\n';
	__u64 ends = (((cr - each) & ~cr) | ((lf - each) & ~lf)) >> 7 & each;

	/* The lowest is a line's end for sure. What is below it, counted in bytes. */
	return ends ? ((((ends & -ends) - 1) & each) * each) >> 56 : sizeof(word);
}

/* A byte outside of the header. */
static __always_inline void read_line(struct call_reader *reader, __u32 at, __u8 byte)
{
	__u32 name;

	if (reader->expected == EXPECT_LINE_END) {
		if (ends_line(byte))
			reader->expected = byte == '\r' ? EXPECT_LINE_FEED : EXPECT_NAME;
		return;
	}
	if (reader->expected == EXPECT_LINE_FEED && byte == '\n') {
		reader->expected = EXPECT_NAME;
		return;
	}
	name = is_blank(byte) ? 0 : name_length(reader, at);
	if (!name) {
		reader->expected = EXPECT_LINE_END;
		return;
	}
	reader->next = at + name;
	reader->expected = EXPECT_COLON;
	reader->blanks = BLANKS;
}

/* A byte where there may be blanks; false: it is none of them. */
static __always_inline bool read_blank(struct call_reader *reader, __u8 byte)
{
	if (reader->blanks == BLANKS && ends_line(byte)) {
		reader->blanks = byte == '\r' ? BLANKS_LINE_FEED : BLANKS_NEXT_LINE;
		return true;
	}
	if (reader->blanks == BLANKS_LINE_FEED) {
		reader->blanks = BLANKS_NEXT_LINE;
		if (byte == '\n')
			return true;
	}
	if (reader->blanks == BLANKS_NEXT_LINE) {
		if (is_blank(byte))
			reader->blanks = BLANKS_IN_NEXT_LINE;
		else
			reader->expected = CALL_ID_REFUSED;
		return true;
	}
	return is_blank(byte);
}

/* The value is over. */
static __always_inline void read_end(struct call_reader *reader, __u32 at, __u8 byte)
{
	bool sound = ends_line(byte) && at - reader->value <= CALL_ID_BYTES;

	reader->expected = sound ? CALL_ID_FOUND : CALL_ID_REFUSED;
	reader->next = at;
}

/* A header without a value: the search goes on. */
static __always_inline void search_on(struct call_reader *reader, __u32 at, __u8 byte)
{
	reader->origin += reader->value;
	reader->expected = EXPECT_LINE_END;
	if (reader->origin > at)
		reader->next = reader->origin;
	else
		read_line(reader, at, byte);
}

/* A byte of the value. */
static __always_inline void read_value(struct call_reader *reader, __u32 at, __u8 byte)
{
	if (is_of_word(byte)) {
		if (reader->expected == EXPECT_HOST)
			reader->expected = EXPECT_HOST_END;
		return;
	}
	if (reader->expected == EXPECT_HOST || at == reader->value)
		search_on(reader, at, byte);
	else if (reader->expected == EXPECT_WORD && byte == '@')
		reader->expected = EXPECT_HOST;
	else
		read_end(reader, at, byte);
}

/* Reads a byte and, where only the end of a line counts, those before it. */
static int read_on(__u32 step __attribute__((unused)), void *context)
{
	struct call_reader *reader = context;
	__u32 at = reader->next;
	__u8 byte;

	if (reader->expected == EXPECT_LINE_END)
		at += bytes_in_line(reader, at);
	if (at >= reader->size)
		return 1;
	reader->next = at + 1;
	byte = reader->search->text[at & SEARCHED_MASK];
	switch (reader->expected) {
	case EXPECT_LINE_END:
	case EXPECT_LINE_FEED:
	case EXPECT_NAME:
		read_line(reader, at, byte);
		break;
	case EXPECT_COLON:
		if (read_blank(reader, byte))
			break;
		reader->expected = byte == ':' ? EXPECT_VALUE : CALL_ID_REFUSED;
		reader->blanks = BLANKS;
		break;
	case EXPECT_VALUE:
		if (read_blank(reader, byte))
			break;
		reader->value = at;
		reader->expected = EXPECT_WORD;
		read_value(reader, at, byte);
		break;
	default:
		read_value(reader, at, byte);
	}
	return reader->expected >= CALL_ID_FOUND;
}

/* Copies what is searched: how many bytes those are. */
static __always_inline __u32 copy_text(struct xdp_md *ctx, const struct packet *pkt,
				       struct call_search *search)
{
	__u32 from = pkt->l3 + pkt->l4 + sizeof(struct udphdr);
	__u32 last = pkt->length - pkt->l4 - sizeof(struct udphdr) - 1;

	if ((__s32)last < 0)
		return 0;
	if (last > SEARCHED_MASK)
		last = SEARCHED_MASK;
	/* See hand_over. */
	asm volatile("" : "+r"(last));
	if (last > SEARCHED_MASK || bpf_xdp_load_bytes(ctx, from, search->text, last + 1))
		return 0;
	return last + 1;
}

/* Keeps what was found, with zeros behind it. */
static __always_inline void keep_found(struct call_search *search, const struct call_reader *reader)
{
	__u64 *words = (__u64 *)&search->found;
	__u32 length = reader->next - reader->value;

	for (int i = 0; i < CALL_ID_WORDS; i++)
		words[i] = 0;
	search->found.length = length;
	for (__u32 i = 0; i < CALL_ID_BYTES; i++) {
		if (i >= length)
			break;
		search->found.text[i] = search->text[(reader->value + i) & SEARCHED_MASK];
	}
}

/* Sixteen bits, and never 0. Secret keys: nobody chooses Call-IDs that fill a way. */
static __always_inline __u16 hash_call_id(const struct call_id *id, const struct settings *set)
{
	const __u64 *words = (const __u64 *)id;
	__u64 h = 0;

	for (__u32 i = 0; i < CALL_ID_WORDS; i++) {
		if (i * sizeof(__u64) > id->length)
			break;
		h = (h ^ words[i]) * (set->hash_keys[4] | 1) + set->hash_keys[0];
		h ^= h >> 32;
	}
	h *= MIX;
	return h >> 48 ? h >> 48 : 1;
}

/* Reads the Call-ID of a packet; false: it has none. Not static: see answer_icmp. */
__noinline int read_call_id(struct xdp_md *ctx, struct packet *pkt)
{
	const struct settings *set = get_settings();
	struct call_reader reader = {};
	__u32 zero = 0;

	reader.search = bpf_map_lookup_elem(&call_searches, &zero);
	if (!pkt || !reader.search || flow_protocol(&pkt->flow) != IPPROTO_UDP)
		return false;
	reader.size = copy_text(ctx, pkt, reader.search);
	bpf_loop(reader.size, read_on, &reader, 0);
	if (reader.expected != CALL_ID_FOUND)
		return false;
	keep_found(reader.search, &reader);
	pkt->call_id = hash_call_id(&reader.search->found, set);
	return true;
}

/* Whether a template of a packet's client, with the same hash, is of its Call-ID, too. Not
 * static: see answer_icmp. */
__noinline int is_of_call(struct connection *template)
{
	const struct call_search *search;
	const __u64 *kept, *words;
	__u32 zero = 0, slot;

	search = bpf_map_lookup_elem(&call_searches, &zero);
	if (!template || !search)
		return false;
	slot = *template_slot(template);
	kept = bpf_map_lookup_elem(&call_ids, &slot);
	if (!kept)
		return false;
	words = (const __u64 *)&search->found;
	for (__u32 i = 0; i < CALL_ID_WORDS; i++) {
		if (i * sizeof(__u64) > search->found.length)
			break;
		if (words[i] != kept[i])
			return false;
	}
	return true;
}

/* Keeps the Call-ID of the packet for its template, whose slot is claimed; false: there
 * is no room. Not static: see answer_icmp. */
__noinline int keep_call_id(__u32 slot)
{
	struct connection *template = entry_at(slot);
	const struct call_search *search;
	__u32 zero = 0;

	search = bpf_map_lookup_elem(&call_searches, &zero);
	if (!template || !search)
		return false;
	*template_slot(template) = slot;
	return !bpf_map_update_elem(&call_ids, &slot, &search->found, BPF_ANY);
}

#endif
