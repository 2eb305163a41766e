/* A PKCS#11 library that passes everything on to another one (MODULE), but for what it was told to do
 * otherwise when it was compiled. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef unsigned long word;

/* CK_FUNCTION_LIST and the flags of CK_TOKEN_INFO, PKCS#11 2.40 */
struct list {
    unsigned char version[2];
    void *calls[68];
};
enum { GET_TOKEN_INFO = 6, LOGIN = 18, SIGN = 43 };
enum { FLAGS_AT = 96 };

static struct list ours;
static const struct list *theirs;

static word get_token_info(word slot, unsigned char *info) {
    word done = ((word(*)(word, unsigned char *))theirs->calls[GET_TOKEN_INFO])(slot, info), flags;
    memcpy(&flags, info + FLAGS_AT, sizeof flags);
#ifdef FLAGS
    flags |= FLAGS;
#endif
    memcpy(info + FLAGS_AT, &flags, sizeof flags);
    return done;
}

static word login(word session, word user, const char *pin, word length) {
#ifdef COUNT
    /* one byte for each attempt */
    FILE *count = fopen(COUNT, "a");
    fputc('.', count);
    fclose(count);
#endif
#ifdef LOGIN_GIVES
    return LOGIN_GIVES;
#endif
#ifdef PAD
    /* a person types at the token; a PIN from elsewhere is none of its business */
    if (pin || length)
        return 7;
    pin = PAD;
    length = strlen(PAD);
#endif
    return ((word(*)(word, word, const char *, word))theirs->calls[LOGIN])(session, user, pin, length);
}

static word sign(word session, const unsigned char *data, word length, unsigned char *to, word *size) {
#ifdef SIGN_GIVES
    return SIGN_GIVES;
#endif
    word done = ((word(*)(word, const unsigned char *, word, unsigned char *, word *))
                     theirs->calls[SIGN])(session, data, length, to, size);
#ifdef FLIP
    if (!done && to)
        to[*size / 2] ^= 1;
#endif
#ifdef SHORTEN
    if (!done && to)
        *size -= 1;
#endif
    return done;
}

word C_GetFunctionList(struct list **list) {
    void *library = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 5;
    word (*get)(const struct list **) = (word(*)(const struct list **))dlsym(library, "C_GetFunctionList");
    word done = get(&theirs);
    ours = *theirs;
    ours.calls[GET_TOKEN_INFO] = get_token_info;
    ours.calls[LOGIN] = login;
    ours.calls[SIGN] = sign;
    *list = &ours;
    return done;
}
