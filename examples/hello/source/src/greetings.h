/* What hello can say: one row per language, sorted by code. */
#ifndef GREETINGS_H
#define GREETINGS_H

struct greeting {
    const char *code;   /* ISO 639-1 */
    const char *name;   /* the language's own name */
    const char *before; /* what stands before the person's name ... */
    const char *after;  /* ... and after it */
    const char *world;  /* whom to greet when nobody is named */
};

static const struct greeting greetings[] = {
    {"de", "Deutsch", "Hallo, ", "!", "Welt"},
    {"en", "English", "Hello, ", "!", "world"},
    {"es", "español", "¡Hola, ", "!", "mundo"},
    {"fr", "français", "Bonjour, ", "!", "le monde"},
    {"it", "italiano", "Ciao, ", "!", "mondo"},
    {"pt", "português", "Olá, ", "!", "mundo"},
};

#endif
