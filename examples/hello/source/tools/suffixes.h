/* Sorts all suffixes of a text in linear time, whatever it holds: SA-IS (Nong, Zhang and Chan, 2009).
 *
 * A suffix rises if it is smaller than the one that begins a letter later, else it falls. The leftmost of each run of
 * rising suffixes are the seeds: few (at most every second), and once they are in order, one pass to the right puts
 * all falling suffixes in order and one to the left all rising ones. The seeds themselves are put in order by
 * naming the pieces between them by rank, and sorting the text of those names in the same way. */
#ifndef SUFFIXES_H
#define SUFFIXES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *need(void *memory, size_t count, size_t each); /* realloc that does not fail */

static void bucket_edges(const int32_t *text, int32_t size, int32_t *edge, int32_t letters, int ends)
{
    int32_t sum = 0;
    memset(edge, 0, (size_t)letters * sizeof *edge);
    for (int32_t i = 0; i < size; i++)
        edge[text[i]]++;
    for (int32_t c = 0; c < letters; c++) {
        int32_t count = edge[c];
        edge[c] = ends ? sum + count : sum;
        sum += count;
    }
}

static int is_seed(const uint8_t *rises, int32_t i) /* the leftmost of a run of rising suffixes */
{
    return i > 0 && rises[i] && !rises[i - 1];
}

static void induce(const int32_t *text, const uint8_t *rises, int32_t size, int32_t *order, int32_t *edge,
                   int32_t letters)
{
    bucket_edges(text, size, edge, letters, 0);
    for (int32_t i = 0; i < size; i++)
        if (order[i] > 0 && !rises[order[i] - 1])
            order[edge[text[order[i] - 1]]++] = order[i] - 1;
    bucket_edges(text, size, edge, letters, 1);
    for (int32_t i = size; i-- > 0;)
        if (order[i] > 0 && rises[order[i] - 1])
            order[--edge[text[order[i] - 1]]] = order[i] - 1;
}

static int same_piece(const int32_t *text, const uint8_t *rises, int32_t a, int32_t b)
{
    for (int32_t i = 0;; i++) { /* ends at the sentinel at the latest: it is unique */
        if (text[a + i] != text[b + i] || rises[a + i] != rises[b + i])
            return 0;
        if (i > 0 && is_seed(rises, a + i))
            return 1;
    }
}

/* text[size - 1] is the sentinel 0, which occurs nowhere else; all letters are below `letters`. */
static void sort_suffixes(const int32_t *text, int32_t size, int32_t *order, int32_t letters)
{
    uint8_t *rises = need(NULL, (size_t)size, 1);
    int32_t *edge = need(NULL, (size_t)letters, sizeof *edge);
    int32_t seeds = 0, names = 0;

    rises[size - 1] = 1;
    for (int32_t i = size - 1; i-- > 0;)
        rises[i] = text[i] < text[i + 1] || (text[i] == text[i + 1] && rises[i + 1]);

    /* Sort the pieces between seeds, and name them by rank: equal pieces, equal names. */
    memset(order, -1, (size_t)size * sizeof *order);
    bucket_edges(text, size, edge, letters, 1);
    for (int32_t i = 1; i < size; i++)
        if (is_seed(rises, i))
            order[--edge[text[i]]] = i;
    induce(text, rises, size, order, edge, letters);
    for (int32_t i = 0; i < size; i++)
        if (is_seed(rises, order[i]))
            order[seeds++] = order[i];
    memset(order + seeds, -1, (size_t)(size - seeds) * sizeof *order);
    for (int32_t i = 0; i < seeds; i++) {
        if (i == 0 || !same_piece(text, rises, order[i - 1], order[i]))
            names++;
        order[seeds + order[i] / 2] = names - 1; /* seeds are never neighbours */
    }
    int32_t *piece = order + size - seeds;
    for (int32_t i = size - 1, to = size; i >= seeds; i--)
        if (order[i] >= 0)
            order[--to] = order[i];

    /* Sort the seeds by the text of names, then all suffixes by the seeds. */
    if (names < seeds)
        sort_suffixes(piece, seeds, order, names);
    else
        for (int32_t i = 0; i < seeds; i++)
            order[piece[i]] = i;
    for (int32_t i = 1, to = 0; i < size; i++)
        if (is_seed(rises, i))
            piece[to++] = i;
    for (int32_t i = 0; i < seeds; i++)
        order[i] = piece[order[i]];
    memset(order + seeds, -1, (size_t)(size - seeds) * sizeof *order);
    bucket_edges(text, size, edge, letters, 1);
    for (int32_t i = seeds; i-- > 0;) {
        int32_t seed = order[i];
        order[i] = -1;
        order[--edge[text[seed]]] = seed;
    }
    if (size == 1)
        order[0] = 0;
    induce(text, rises, size, order, edge, letters);
    free(edge);
    free(rises);
}

#endif
