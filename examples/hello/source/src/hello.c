/* hello: greets somebody in one of a few languages.
 *
 * The build passes the content of the file VERSION as the macro VERSION. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greetings.h"

#ifndef VERSION
#error "compile with -DVERSION='\"...\"'; scripts/build.sh does"
#endif

#define COUNT (sizeof greetings / sizeof greetings[0])

static const char usage[] = "usage: hello [--language CODE] [NAME]\n"
                            "       hello --list | --version | --help\n";

/* The greeting whose code opens the given locale or code ("fr", "fr_CA.UTF-8"), or NULL. */
static const struct greeting *find(const char *locale)
{
    size_t length = strcspn(locale, "_-.@");
    for (size_t i = 0; i < COUNT; i++)
        if (strlen(greetings[i].code) == length && memcmp(greetings[i].code, locale, length) == 0)
            return &greetings[i];
    return NULL;
}

/* The user's language if the environment names one that we speak, else English. */
static const struct greeting *preferred(void)
{
    static const char *const variables[] = {"LC_ALL", "LC_MESSAGES", "LANG"};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = getenv(variables[i]);
        if (value != NULL && *value != '\0') {
            const struct greeting *found = find(value);
            return found != NULL ? found : find("en");
        }
    }
    return find("en");
}

static int refuse(const char *what, const char *which)
{
    fprintf(stderr, "hello: %s: %s\n%s", what, which, usage);
    return 2;
}

int main(int argc, char **argv)
{
    const struct greeting *greeting = NULL;
    const char *name = NULL;
    int options = 1; /* until "--" */

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!options || word[0] != '-') {
            if (name != NULL)
                return refuse("one name is enough", word);
            name = word;
        } else if (strcmp(word, "--") == 0) {
            options = 0;
        } else if (strcmp(word, "--version") == 0) {
            puts("hello " VERSION);
            return fflush(stdout) != 0;
        } else if (strcmp(word, "--help") == 0) {
            fputs(usage, stdout);
            return fflush(stdout) != 0;
        } else if (strcmp(word, "--list") == 0) {
            for (size_t k = 0; k < COUNT; k++)
                printf("%s  %s\n", greetings[k].code, greetings[k].name);
            return fflush(stdout) != 0;
        } else if (strcmp(word, "--language") == 0) {
            if (++i == argc)
                return refuse("a language code is missing after", word);
            if ((greeting = find(argv[i])) == NULL)
                return refuse("not a language that hello speaks (see --list)", argv[i]);
        } else {
            return refuse("unknown option", word);
        }
    }

    if (greeting == NULL)
        greeting = preferred();
    printf("%s%s%s\n", greeting->before, name != NULL ? name : greeting->world, greeting->after);
    return fflush(stdout) != 0;
}
