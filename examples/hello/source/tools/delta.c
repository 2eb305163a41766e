/* delta: makes and applies binary patches, in the manner of Percival's bsdiff.
 *
 *     delta diff  OLD NEW PATCH     writes the PATCH that makes NEW of OLD
 *     delta patch OLD PATCH NEW     applies it
 *
 * NEW is covered by steps. A step takes a stretch of OLD and adds to it, byte by byte, a difference that is mostly
 * zero (code that moved, with some addresses changed), then inserts bytes that OLD has nowhere, then moves in OLD.
 *
 * A patch is the magic, a header of numbers (sizes of OLD and NEW, their check sums, lengths of the three streams),
 * and the streams: control (three numbers a step), differences, insertions. Numbers are little-endian base 128.
 * The two byte streams are packed as pairs "so many zeros, so many bytes that follow".
 *
 * The check sums find mistakes such as the wrong OLD. They do not stop an attacker: that is what signatures are for.
 * Exit status: 0 done, 1 failed, 2 usage. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suffixes.h"

static const uint8_t magic[8] = "DELTA-1\n";
enum { LIMIT = INT32_MAX - 1 }; /* the largest file */

typedef struct {
    uint8_t *at;
    size_t size, room;
} Bytes;

_Noreturn static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("delta: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *need(void *memory, size_t count, size_t each)
{
    if (count >= SIZE_MAX / each || (memory = realloc(memory, count * each + 1)) == NULL)
        die("out of memory");
    return memory;
}

static void reserve(Bytes *to, size_t more)
{
    if (to->at == NULL || to->room - to->size < more)
        to->at = need(to->at, to->room = 2 * to->size + more + 64, 1);
}

static void append(Bytes *to, const uint8_t *from, size_t count)
{
    reserve(to, count);
    if (count > 0)
        memcpy(to->at + to->size, from, count);
    to->size += count;
}

static void append_number(Bytes *to, uint64_t number)
{
    reserve(to, 10);
    for (; number >= 0x80; number >>= 7)
        to->at[to->size++] = (uint8_t)(number | 0x80);
    to->at[to->size++] = (uint8_t)number;
}

static Bytes load(const char *path)
{
    Bytes file = {0};
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        die("%s: %s", path, strerror(errno));
    do {
        reserve(&file, 1 << 16);
        file.size += fread(file.at + file.size, 1, file.room - file.size, stream);
        if (file.size > LIMIT)
            die("%s: too large", path);
    } while (!feof(stream) && !ferror(stream));
    if (ferror(stream))
        die("%s: %s", path, strerror(errno));
    fclose(stream);
    return file;
}

static void save(const char *path, Bytes file)
{
    FILE *stream = fopen(path, "wb");
    if (stream == NULL)
        die("%s: %s", path, strerror(errno));
    size_t written = fwrite(file.at, 1, file.size, stream);
    if (fclose(stream) != 0 || written != file.size)
        die("%s: cannot write", path);
}

static uint64_t check_sum(Bytes bytes) /* FNV-1a */
{
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < bytes.size; i++)
        sum = (sum ^ bytes.at[i]) * 0x100000001b3;
    return sum;
}

/* ---- diff ---- */

typedef struct {
    Bytes old;
    int32_t *order;       /* all suffixes of old, the empty one first */
    int32_t first[65537]; /* where in order those begin that start with these two bytes */
} Index;

static Index *make_index(Bytes old)
{
    Index *index = need(NULL, 1, sizeof *index);
    int32_t *text = need(NULL, old.size + 1, sizeof *text);

    index->old = old;
    index->order = need(NULL, old.size + 1, sizeof *index->order);
    memset(index->first, 0, sizeof index->first);
    index->first[0] = 1;
    for (size_t i = 0; i < old.size; i++) {
        index->first[(old.at[i] << 8 | (i + 1 < old.size ? old.at[i + 1] : 0)) + 1]++;
        text[i] = old.at[i] + 1;
    }
    for (size_t i = 0; i < 65536; i++)
        index->first[i + 1] += index->first[i];
    text[old.size] = 0;
    sort_suffixes(text, (int32_t)old.size + 1, index->order, 257);
    free(text);
    return index;
}

/* The longest stretch of OLD that NEW has at `at`: its length, and where it begins in OLD. */
static size_t longest_match(const Index *index, Bytes new, size_t at, size_t *where)
{
    if (new.size - at < 2)
        return 0;
    size_t key = (size_t)new.at[at] << 8 | new.at[at + 1], best = 0, under = 0, over = 0;
    int32_t low = index->first[key], high = index->first[key + 1];
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        const uint8_t *a = index->old.at + index->order[middle], *b = new.at + at;
        size_t a_size = index->old.size - (size_t)index->order[middle], b_size = new.size - at;
        size_t same = under < over ? under : over; /* all between low and high share this much */
        while (same < a_size && same < b_size && a[same] == b[same])
            same++;
        if (same > best) {
            best = same;
            *where = (size_t)index->order[middle];
        }
        if (same == b_size)
            break;
        if (same == a_size || a[same] < b[same]) {
            low = middle + 1;
            under = same;
        } else {
            high = middle;
            over = same;
        }
    }
    return best;
}

/* How many of the first `count` bytes agree. */
static size_t agreeing(const uint8_t *a, const uint8_t *b, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] == b[i];
    return sum;
}

/* How far to go from a and b, at most `limit` bytes, so that agreement most outweighs disagreement. */
static size_t worthwhile(const uint8_t *a, const uint8_t *b, size_t limit, int direction)
{
    ptrdiff_t score = 0, best = 0;
    size_t length = 0;
    for (size_t i = 0; i < limit; i++) {
        ptrdiff_t k = direction > 0 ? (ptrdiff_t)i : -1 - (ptrdiff_t)i;
        score += a[k] == b[k] ? 1 : -1;
        if (score > best) {
            best = score;
            length = i + 1;
        }
    }
    return length;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Moves *scan on to the next place in NEW where another stretch of OLD fits clearly better than going on as before,
 * with OLD's `from` beside NEW's `done`. Returns its length and *where it begins in OLD; 0 at the end of NEW. */
static size_t find_turn(const Index *index, Bytes new, size_t done, size_t from, size_t *scan, size_t *where)
{
    enum { CLEARLY = 8, SETTLED = 32 };
    while (*scan < new.size) {
        const uint8_t *next = new.at + *scan;
        size_t beside = least(from + (*scan - done), index->old.size);
        size_t left = least(index->old.size - beside, new.size - *scan);
        if (left >= SETTLED && memcmp(index->old.at + beside, next, SETTLED) == 0) {
            *scan += SETTLED; /* all is well here: no need to search */
            continue;
        }
        size_t length = longest_match(index, new, *scan, where);
        size_t now = agreeing(index->old.at + beside, next, least(length, left));
        if (length > now + CLEARLY)
            return length;
        *scan += length > 0 && length == now ? length : 1;
    }
    return 0;
}

static void append_packed(Bytes *to, Bytes raw)
{
    for (size_t i = 0; i < raw.size;) {
        size_t start = i, zeros = 0;
        while (i < raw.size && raw.at[i] == 0)
            i++;
        append_number(to, i - start);
        for (start = i; i < raw.size && zeros < 4; i++)
            zeros = raw.at[i] == 0 ? zeros + 1 : 0;
        i -= zeros; /* they open the next pair */
        append_number(to, i - start);
        append(to, raw.at + start, i - start);
    }
}

static Bytes make_patch(Bytes old, Bytes new)
{
    Bytes patch = {0}, control = {0}, changes = {0}, inserts = {0}, packed_changes = {0}, packed_inserts = {0};
    Index *index = make_index(old);
    size_t done = 0, from = 0, scan = 0; /* NEW is covered up to `done`, which stands beside OLD's `from` */

    while (done < new.size) {
        size_t where = 0, length = find_turn(index, new, done, from, &scan, &where), gap = scan - done;
        size_t ahead = worthwhile(old.at + from, new.at + done, least(gap, old.size - from), 1);
        size_t back = length == 0 ? 0 : worthwhile(old.at + where, new.at + scan, least(gap, where), -1);
        if (ahead + back > gap) { /* both want the middle: cut it where they agree most */
            ptrdiff_t score = 0, best = 0;
            size_t cut = gap - back;
            for (size_t i = cut; i < ahead; i++) {
                uint8_t byte = new.at[done + i];
                score += (old.at[from + i] == byte) - (old.at[where + i - gap] == byte);
                if (score > best) {
                    best = score;
                    cut = i + 1;
                }
            }
            ahead = cut;
            back = gap - cut;
        }
        reserve(&changes, ahead);
        for (size_t i = 0; i < ahead; i++)
            changes.at[changes.size++] = (uint8_t)(new.at[done + i] - old.at[from + i]);
        append(&inserts, new.at + done + ahead, gap - back - ahead);

        size_t end = from + ahead, next = length == 0 ? end : where - back;
        append_number(&control, ahead);
        append_number(&control, gap - back - ahead);
        append_number(&control, next >= end ? (next - end) * 2 : (end - next) * 2 - 1);
        done = scan - back;
        from = next;
        scan += length;
    }

    append_packed(&packed_changes, changes);
    append_packed(&packed_inserts, inserts);
    append(&patch, magic, sizeof magic);
    append_number(&patch, old.size);
    append_number(&patch, check_sum(old));
    append_number(&patch, new.size);
    append_number(&patch, check_sum(new));
    append_number(&patch, control.size);
    append_number(&patch, packed_changes.size);
    append_number(&patch, packed_inserts.size);
    append(&patch, control.at, control.size);
    append(&patch, packed_changes.at, packed_changes.size);
    append(&patch, packed_inserts.at, packed_inserts.size);
    return patch; /* the process ends soon: nothing is freed */
}

/* ---- patch: believes nothing that it reads ---- */

typedef struct {
    const uint8_t *at, *end;
    uint64_t zeros, bytes; /* what is left of the current pair */
} Reader;

static uint64_t read_number(Reader *from)
{
    uint64_t number = 0;
    for (int shift = 0; from->at < from->end && shift < 64; shift += 7) {
        uint8_t byte = *from->at++;
        if (shift == 63 && byte > 1)
            break;
        number |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return number;
    }
    die("damaged patch: a number is cut off or too large");
}

static Reader split(Reader *from, uint64_t size)
{
    if (size > (uint64_t)(from->end - from->at))
        die("damaged patch: a stream is cut off");
    Reader part = {.at = from->at, .end = from->at + size};
    from->at += size;
    return part;
}

static void unpack(Reader *from, uint8_t *to, size_t count)
{
    while (count > 0) {
        if (from->zeros == 0 && from->bytes == 0) {
            from->zeros = read_number(from);
            from->bytes = read_number(from);
            if (from->bytes > (uint64_t)(from->end - from->at))
                die("damaged patch: a stream is cut off");
        }
        size_t part = from->zeros > 0 ? least(from->zeros, count) : least(from->bytes, count);
        if (from->zeros > 0) {
            memset(to, 0, part);
            from->zeros -= part;
        } else {
            memcpy(to, from->at, part);
            from->at += part;
            from->bytes -= part;
        }
        to += part;
        count -= part;
    }
}

static int is_spent(const Reader *reader)
{
    return reader->at == reader->end && reader->zeros == 0 && reader->bytes == 0;
}

static Bytes apply_patch(Bytes old, Bytes patch)
{
    Reader reader = {.at = patch.at, .end = patch.at + patch.size};
    if (patch.size < sizeof magic || memcmp(patch.at, magic, sizeof magic) != 0)
        die("not a patch that delta made");
    reader.at += sizeof magic;
    uint64_t old_size = read_number(&reader), old_sum = read_number(&reader);
    uint64_t new_size = read_number(&reader), new_sum = read_number(&reader);
    if (old_size != old.size || old_sum != check_sum(old))
        die("the patch is for another old file");
    if (new_size > LIMIT)
        die("damaged patch: the new file is too large");
    uint64_t control_size = read_number(&reader), changes_size = read_number(&reader);
    uint64_t inserts_size = read_number(&reader);
    Reader control = split(&reader, control_size);
    Reader changes = split(&reader, changes_size);
    Reader inserts = split(&reader, inserts_size);

    Bytes new = {.at = need(NULL, new_size, 1), .room = new_size};
    size_t from = 0;
    while (control.at < control.end) {
        uint64_t ahead = read_number(&control), inserted = read_number(&control), move = read_number(&control);
        if (ahead > old.size - from || ahead > new_size - new.size || inserted > new_size - new.size - ahead)
            die("damaged patch: a step leaves the file");
        unpack(&changes, new.at + new.size, ahead);
        for (size_t i = 0; i < ahead; i++)
            new.at[new.size + i] = (uint8_t)(new.at[new.size + i] + old.at[from + i]);
        unpack(&inserts, new.at + new.size + ahead, inserted);
        new.size += ahead + inserted;
        from += ahead;
        uint64_t distance = move / 2 + move % 2; /* odd: backwards */
        if (distance > (move % 2 ? from : old.size - from))
            die("damaged patch: a step leaves the file");
        from = move % 2 ? from - distance : from + distance;
    }
    if (new.size != new_size || !is_spent(&reader) || !is_spent(&changes) || !is_spent(&inserts))
        die("damaged patch: sizes do not agree");
    if (check_sum(new) != new_sum)
        die("damaged patch: the result is not the new file");
    return new;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "diff") == 0) {
        save(argv[4], make_patch(load(argv[2]), load(argv[3])));
    } else if (argc == 5 && strcmp(argv[1], "patch") == 0) {
        save(argv[4], apply_patch(load(argv[2]), load(argv[3])));
    } else {
        fputs("usage: delta diff OLD NEW PATCH\n       delta patch OLD PATCH NEW\n", stderr);
        return 2;
    }
    return 0;
}
