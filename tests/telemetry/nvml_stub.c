/* A stand-in for libnvidia-ml.so.1 whose GPUs follow formulas of the time, so that tests know the truth.
 *
 * Built and configured by nvml.py, which lists the keys. The configuration is a file of lines "key = value" or
 * "GPU.key = value", named by SERVEBENCH_NVML_STUB; it is read at every call, so that it may change. Without it
 * there is no driver. Times are seconds since start_ns (CLOCK_REALTIME). A value of "-" is not supported. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, NO_DRIVER = 9, NO_FUNCTION = 13, LOST = 15, FAILED = 999 };
enum { HOST = -1, MOST_GPUS = 16, MOST = 65536, LINE = 4096 };
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } Process;

static __thread char config[MOST];
static int handles[MOST_GPUS];

/* Configuration */

static int load_config(void) {
    const char *path = getenv("SERVEBENCH_NVML_STUB");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, config + 1, MOST - 2);
    close(file);
    config[0] = '\n';
    config[length > 0 ? length + 1 : 1] = 0;
    return 1;
}

static int find(const char *start, char *value) {
    char *place = strstr(config, start);
    if (!place) return 0;
    place += strlen(start);
    size_t length = strcspn(place, "\n");
    memcpy(value, place, length < LINE ? length : LINE - 1);
    value[length < LINE ? length : LINE - 1] = 0;
    return 1;
}

static const char *text(int gpu, const char *key) { /* the value of a key: of this GPU, or of all; "-" if neither */
    static __thread char value[LINE];
    char start[128];
    snprintf(start, sizeof start, "\n%d.%s = ", gpu, key);
    if (gpu >= 0 && find(start, value)) return value;
    snprintf(start, sizeof start, "\n%s = ", key);
    return find(start, value) ? value : strcpy(value, "-");
}

static int told(int gpu, const char *key) { return strcmp(text(gpu, key), "-") != 0; }
static double number(int gpu, const char *key) { return strtod(text(gpu, key), NULL); } /* 0 for "-" */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long long start = strtoll(text(HOST, "start_ns"), NULL, 10);
    return (now.tv_sec * 1000000000LL + now.tv_nsec - start) / 1e9;
}

static int active(const char *word, double t) { /* WORD@FROM-TO at this time; without @ always */
    double from, to;
    const char *span = strchr(word, '@');
    return !span || (sscanf(span, "@%lf-%lf", &from, &to) == 2 && from <= t && t < to);
}

/* The first word of a value that is active, from *rest on, which moves behind it. */
static char *next_active(char **rest, double t) {
    for (char *word; (word = strsep(rest, " "));)
        if (*word && *word != '-' && active(word, t)) return word;
    return NULL;
}

static long long any_active(int gpu, const char *key) { /* NUMBER@FROM-TO ...: those of now, joined by or */
    char copy[LINE], *rest = copy, *word;
    long long found = 0;
    double t = seconds();
    strcpy(copy, text(gpu, key));
    while ((word = next_active(&rest, t))) found |= strtoll(word, NULL, 0);
    return found;
}

/* Truth: the integral of power, the same in nvml.py */

static double joules(int gpu, double t) { /* since start_ns */
    char shape[32];
    double low, high, period;
    int words = sscanf(text(gpu, "power"), "%31s %lf %lf %lf", shape, &low, &high, &period);
    if (words == 2) return low * t;
    if (!strcmp(shape, "ramp"))
        return t <= 0 ? low * t : t < period ? low * t + (high - low) * t * t / (2 * period)
                                             : (low + high) / 2 * period + high * (t - period);
    double cycles = floor(t / period), rest = t - cycles * period, before = cycles * period * (low + high) / 2;
    if (!strcmp(shape, "sawtooth")) return before + low * rest + (high - low) * rest * rest / (2 * period);
    return before + (rest < period / 2 ? low * rest : low * period / 2 + high * (rest - period / 2)); /* steps */
}

static double watts(int gpu, double t) {
    double over = fmax(number(gpu, "power_average_s"), 1e-4);
    return (joules(gpu, t) - joules(gpu, t - over)) / over;
}

static double millijoules(int gpu, double t) {
    double every = number(gpu, "counter_every_s"), wrap = number(gpu, "counter_wrap_mj"), since = 0;
    double first = number(gpu, "counter_first_mj"), reset = number(gpu, "counter_reset_s");
    t = every > 0 ? floor(t / every) * every : t;
    if (told(gpu, "counter_reset_s") && t >= reset) since = reset, first = 0;
    double counted = first + 1000 * number(gpu, "counter_scale") * (joules(gpu, t) - joules(gpu, since));
    return wrap > 0 ? fmod(counted, wrap) : counted;
}

/* Every call: is counted, may be missing, slow, or fail. `kind`: of a reading, "" for what never changes. */

static void count(const char *function) {
    char line[128];
    int file = told(HOST, "calls") ? open(text(HOST, "calls"), O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (file < 0) return;
    if (write(file, line, snprintf(line, sizeof line, "%s\n", function)) < 0) perror("calls");
    close(file);
}

static int in_gap(int gpu, const char *key) { /* FROM-TO ... */
    char copy[LINE], *rest = copy;
    double t = seconds(), from, to;
    strcpy(copy, text(gpu, key));
    for (char *word; (word = strsep(&rest, " "));)
        if (sscanf(word, "%lf-%lf", &from, &to) == 2 && from <= t && t < to) return 1;
    return 0;
}

static int enter(const char *function, int gpu, const char *kind) {
    char key[64];
    if (!load_config()) return NO_DRIVER;
    count(function);
    if (strstr(text(HOST, "missing"), function)) return NO_FUNCTION;
    if (in_gap(HOST, "driver_gaps")) return NO_DRIVER;
    if (!*kind) return OK;
    usleep(1000 * any_active(gpu, "slow_ms"));
    if (in_gap(gpu, "lost")) return LOST;
    snprintf(key, sizeof key, "%s_gaps", kind);
    return in_gap(gpu, "gaps") || in_gap(gpu, key) ? FAILED : OK;
}

#define ENTER(gpu, kind) do { int error = enter(__func__, gpu, kind); if (error) return error; } while (0)
#define NUMBER(gpu, key, result, factor) do { \
    if (!told(gpu, key)) return NOT_SUPPORTED; \
    *(result) = llround(factor * number(gpu, key)); \
    return OK; } while (0)

static int give(const char *value, char *buffer, unsigned length) {
    if (!strcmp(value, "-")) return NOT_SUPPORTED;
    return (unsigned)snprintf(buffer, length, "%s", value) < length ? OK : TOO_SMALL;
}

/* Host */

int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(HOST, ""); return number(HOST, "init_error"); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int error) { (void)error; return "an error of the stub"; }
int nvmlSystemGetDriverVersion(char *to, unsigned n) { ENTER(HOST, ""); return give(text(HOST, "driver"), to, n); }
int nvmlSystemGetCudaDriverVersion(int *version) { ENTER(HOST, ""); NUMBER(HOST, "cuda", version, 1); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { ENTER(HOST, ""); NUMBER(HOST, "cuda", version, 1); }
int nvmlDeviceGetCount_v2(unsigned *n) { ENTER(HOST, ""); NUMBER(HOST, "gpus", n, 1); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **handle) {
    ENTER(HOST, "");
    if (index >= number(HOST, "gpus")) return INVALID;
    handles[index] = index;
    *handle = &handles[index];
    return OK;
}

/* What a GPU is */

int nvmlDeviceGetName(int *gpu, char *to, unsigned n) { ENTER(*gpu, ""); return give(text(*gpu, "name"), to, n); }
int nvmlDeviceGetUUID(int *gpu, char *to, unsigned n) { ENTER(*gpu, ""); return give(text(*gpu, "uuid"), to, n); }
int nvmlDeviceGetIndex(int *gpu, unsigned *index) { ENTER(*gpu, ""); *index = *gpu; return OK; }
int nvmlDeviceGetPowerManagementLimit(int *gpu, unsigned *mw) { ENTER(*gpu, ""); NUMBER(*gpu, "power_limit_w", mw, 1e3); }
int nvmlDeviceGetEnforcedPowerLimit(int *gpu, unsigned *mw) { ENTER(*gpu, ""); NUMBER(*gpu, "power_limit_w", mw, 1e3); }

int nvmlDeviceGetPowerManagementDefaultLimit(int *gpu, unsigned *mw) {
    ENTER(*gpu, "");
    NUMBER(*gpu, "default_power_limit_w", mw, 1e3);
}

int nvmlDeviceGetMaxClockInfo(int *gpu, int clock, unsigned *mhz) { /* 1: SM, 2: memory */
    ENTER(*gpu, "");
    NUMBER(*gpu, clock == 2 ? "max_memory_clock_mhz" : "max_sm_clock_mhz", mhz, 1);
}

int nvmlDeviceGetEccMode(int *gpu, unsigned *now, unsigned *pending) {
    ENTER(*gpu, "");
    *pending = number(*gpu, "ecc");
    NUMBER(*gpu, "ecc", now, 1);
}

int nvmlDeviceGetMigMode(int *gpu, unsigned *now, unsigned *pending) {
    ENTER(*gpu, "");
    *pending = number(*gpu, "mig");
    NUMBER(*gpu, "mig", now, 1);
}

int nvmlDeviceGetMemoryBusWidth(int *gpu, unsigned *bits) { ENTER(*gpu, ""); NUMBER(*gpu, "memory_bus_bits", bits, 1); }
int nvmlDeviceGetCurrPcieLinkGeneration(int *gpu, unsigned *n) { ENTER(*gpu, ""); NUMBER(*gpu, "pcie", n, 1); }
int nvmlDeviceGetMaxPcieLinkGeneration(int *gpu, unsigned *n) { ENTER(*gpu, ""); NUMBER(*gpu, "pcie", n, 1); }
int nvmlDeviceGetCurrPcieLinkWidth(int *gpu, unsigned *n) { ENTER(*gpu, ""); NUMBER(*gpu, "pcie_lanes", n, 1); }
int nvmlDeviceGetMaxPcieLinkWidth(int *gpu, unsigned *n) { ENTER(*gpu, ""); NUMBER(*gpu, "pcie_lanes", n, 1); }

int nvmlDeviceGetNvLinkState(int *gpu, unsigned link, unsigned *on) {
    ENTER(*gpu, "");
    if (!told(*gpu, "nvlinks")) return NOT_SUPPORTED;
    *on = link < number(*gpu, "nvlinks");
    return link < 18 ? OK : INVALID;
}

/* What a GPU does */

int nvmlDeviceGetPowerUsage(int *gpu, unsigned *mw) {
    ENTER(*gpu, "power");
    if (!told(*gpu, "power")) return NOT_SUPPORTED;
    *mw = llround(1000 * watts(*gpu, seconds()));
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(int *gpu, unsigned long long *mj) {
    ENTER(*gpu, "counter");
    if (!told(*gpu, "counter_first_mj")) return NOT_SUPPORTED;
    *mj = millijoules(*gpu, seconds());
    return OK;
}

int nvmlDeviceGetUtilizationRates(int *gpu, unsigned shares[2]) { /* in percent: SM, memory */
    ENTER(*gpu, "utilisation");
    if (!told(*gpu, "sm")) return NOT_SUPPORTED;
    int busy = !in_gap(*gpu, "idle");
    shares[0] = busy * llround(100 * number(*gpu, "sm"));
    shares[1] = busy * llround(100 * number(*gpu, "memory"));
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(int *gpu, unsigned long long *bits) {
    ENTER(*gpu, "throttle");
    *bits = any_active(*gpu, "throttle");
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(int *gpu, unsigned long long *bits) {
    ENTER(*gpu, "throttle");
    *bits = any_active(*gpu, "throttle");
    return OK;
}

int nvmlDeviceGetClockInfo(int *gpu, int clock, unsigned *mhz) {
    ENTER(*gpu, "clock");
    NUMBER(*gpu, clock == 2 ? "max_memory_clock_mhz" : "sm_clock_mhz", mhz, 1);
}

int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned *celsius) {
    (void)sensor;
    ENTER(*gpu, "temperature");
    NUMBER(*gpu, "temperature_c", celsius, 1);
}

int nvmlDeviceGetMemoryInfo(int *gpu, unsigned long long bytes[3]) { /* total, free, used */
    ENTER(*gpu, "memory");
    if (!told(*gpu, "memory_bytes")) return NOT_SUPPORTED;
    bytes[0] = number(*gpu, "memory_bytes"), bytes[2] = number(*gpu, "memory_used_bytes");
    bytes[1] = bytes[0] - bytes[2];
    return OK;
}

/* Processes: PID:BYTES[:NAME]@FROM-TO of `processes`, and those of `own`: "session", "file PATH", "command WORD" */

static int has_word(unsigned pid, const char *word) {
    char path[64], line[LINE];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, line, LINE - 1);
    if (file >= 0) close(file);
    for (ssize_t i = 0; i < length; i++) line[i] = line[i] ? line[i] : ' ';
    line[length > 0 ? length : 0] = 0;
    return strstr(line, word) != NULL;
}

static unsigned own(int gpu, Process *found, unsigned most) {
    char how[LINE];
    unsigned n = 0, pid;
    unsigned long long bytes = number(gpu, "own_bytes");
    strcpy(how, text(gpu, "own"));
    if (!strncmp(how, "file ", 5)) {
        FILE *file = fopen(how + 5, "re");
        while (file && n < most && fscanf(file, "%u", &pid) == 1) found[n++] = (Process){pid, bytes, ~0u, ~0u};
        if (file) fclose(file);
    } else if (strcmp(how, "-")) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; all && n < most && (entry = readdir(all));) {
            if (!isdigit(entry->d_name[0])) continue;
            pid = strtoul(entry->d_name, NULL, 10);
            int ours = strncmp(how, "command ", 8) ? getsid(pid) == getsid(0) : has_word(pid, how + 8);
            if (ours) found[n++] = (Process){pid, bytes, ~0u, ~0u};
        }
        if (all) closedir(all);
    }
    return n;
}

static int processes(int gpu, unsigned *n, Process *to) {
    enum { LIMIT = 4096 };
    char copy[LINE], *rest = copy, *word;
    Process found[LIMIT];
    unsigned all = own(gpu, found, LIMIT / 2);
    double t = seconds();
    strcpy(copy, text(gpu, "processes"));
    for (; all < LIMIT && (word = next_active(&rest, t)); all++) {
        found[all] = (Process){0, 0, ~0u, ~0u};
        sscanf(word, "%u:%llu", &found[all].pid, &found[all].bytes);
    }
    unsigned room = *n;
    *n = all;
    if (all > room) return TOO_SMALL;
    memcpy(to, found, all * sizeof *found);
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(int *gpu, unsigned *n, Process *to) {
    ENTER(*gpu, "processes");
    return processes(*gpu, n, to);
}

int nvmlDeviceGetComputeRunningProcesses_v2(int *gpu, unsigned *n, Process *to) {
    ENTER(*gpu, "processes");
    return processes(*gpu, n, to);
}

int nvmlSystemGetProcessName(unsigned pid, char *to, unsigned n) {
    char copy[LINE], *rest = copy, name[256];
    unsigned of;
    ENTER(HOST, "");
    for (int gpu = 0; gpu < number(HOST, "gpus"); gpu++) {
        strcpy(rest = copy, text(gpu, "processes"));
        for (char *word; (word = strsep(&rest, " "));)
            if (sscanf(word, "%u:%*u:%255[^@]", &of, name) == 2 && of == pid) return give(name, to, n);
    }
    snprintf(copy, sizeof copy, "/proc/%u/exe", pid);
    ssize_t length = readlink(copy, name, sizeof name - 1);
    name[length > 0 ? length : 0] = 0;
    return length > 0 ? give(name, to, n) : 6; /* not found */
}
