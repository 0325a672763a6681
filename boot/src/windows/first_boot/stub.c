/* A program for tests: it notes how it was called, prints a file, and ends as a rule says. Compiled by wine_tests.rs. */
#include <windows.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    static char line[8192], rule[1024], path[300], old[8192];
    char *name = strrchr(argv[0], '\\');
    name = name ? name + 1 : argv[0];
    snprintf(line, sizeof line, "%s", name);
    char *dot = strchr(line, '.');
    if (dot) *dot = 0;
    snprintf(path, sizeof path, "C:\\stub\\%s.out", line);
    for (int at = 1; at < argc; at++) {
        strncat(line, " ", sizeof line - strlen(line) - 1);
        strncat(line, argv[at], sizeof line - strlen(line) - 1);
    }
    int code = 0;
    FILE *rules = fopen("C:\\stub\\rules.txt", "r");
    while (rules && fgets(rule, sizeof rule, rules)) {
        char *end = strpbrk(rule, "\r\n"); if (end) *end = 0;
        char *bar = strchr(rule, '|'); if (!bar) continue;
        *bar = 0;
        int wanted = atoi(bar + 1), hits = 0, limit = 1 << 30;
        char *second = strchr(bar + 1, '|'); if (second) limit = atoi(second + 1);
        if (!strstr(line, rule)) continue;
        FILE *calls = fopen("C:\\stub\\calls.log", "r");
        while (calls && fgets(old, sizeof old, calls)) if (strstr(old, rule)) hits++;
        if (calls) fclose(calls);
        if (hits < limit) code = wanted;
    }
    if (rules) fclose(rules);
    FILE *calls = fopen("C:\\stub\\calls.log", "a");
    if (calls) { fprintf(calls, "%s\n", line); fclose(calls); }
    FILE *out = fopen(path, "r");
    while (out && fgets(old, sizeof old, out)) fputs(old, stdout);
    if (out) fclose(out);
    return code;
}
