/* The shim's executable: the smallest CPython that can run a few frozen modules (cni.shim and what it imports).
 *
 * Owns process start, and what the modules need of the process (`Native`, see fallback.py). Must not know the protocol.
 * Compiled by freeze.py, which generates shim_code.h.
 *
 * Where the time of `python3 -I -S -c pass` goes (5.2 ms from exec to exit; 1.5 ms here), and is therefore left out:
 *   - `_init_main = 0`: only the core phase of initialisation (PEP 587, "Multi-Phase Initialization Private Provisional
 *     API"): no path configuration, no `encodings`, no sys.stdin and friends, no signal handlers;
 *   - `_install_importlib = 0`: an `import` finds what stands in sys.modules, which `main` fills, and nothing else;
 *   - interning the strings of the ~30 standard modules that the library has frozen (it dirties 100 pages);
 *   - garbage collection, which ran dozens of times over objects that live as long as the process;
 *   - the table of built-in modules: expat, zlib, hashes and forty others are not even linked;
 *   - finalisation: the shim ends by _exit.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1 /* for the two internal headers */
#include <Python.h>
#include "internal/pycore_gc.h"
#include "internal/pycore_namespace.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#include "shim_code.h" /* SHIM_MODULES: name, marshalled code, size */

extern PyObject *PyInit__socket(void), *PyInit_posix(void);

/* In the place of the library's config.o, whose table would link every module of it. */
struct _inittab _PyImport_Inittab[] = {{NULL, NULL}};

/* The linker's --wrap puts these two before the library's own (Python/deepfreeze, Modules/gcmodule.c). */
int __wrap__Py_Deepfreeze_Init(void) { return 0; }

extern void __real__PyGC_InitState(struct _gc_runtime_state *);
void __wrap__PyGC_InitState(struct _gc_runtime_state *state) {
    __real__PyGC_InitState(state);
    state->enabled = 0;
}

static long long boottime_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static PyObject *native_boottime_ns(PyObject *self, PyObject *unused) { return PyLong_FromLongLong(boottime_ns()); }

static PyObject *native_setns(PyObject *self, PyObject *args) {
    int descriptor, kind;
    if (!PyArg_ParseTuple(args, "ii:setns", &descriptor, &kind)) return NULL;
    if (setns(descriptor, kind) != 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *native_readable(PyObject *self, PyObject *args) {
    int descriptor;
    long long until_ns;
    if (!PyArg_ParseTuple(args, "iL:readable", &descriptor, &until_ns)) return NULL;
    long long left_ms = (until_ns - boottime_ns() + 999999) / 1000000;
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    int timeout_ms = left_ms < 0 ? 0 : left_ms > INT_MAX ? INT_MAX : (int)left_ms;
    return PyBool_FromLong(poll(&waiting, 1, timeout_ms) != 0); /* an error: read(2) tells it */
}

static PyObject *native_sleep(PyObject *self, PyObject *duration_ns) {
    long long left_ns = PyLong_AsLongLong(duration_ns);
    if (left_ns > 0) nanosleep(&(struct timespec){left_ns / 1000000000, left_ns % 1000000000}, NULL);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef native_methods[] = {
    {"boottime_ns", native_boottime_ns, METH_NOARGS, NULL},
    {"sleep", native_sleep, METH_O, NULL},
    {"setns", native_setns, METH_VARARGS, NULL},
    {"readable", native_readable, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef native_module = {PyModuleDef_HEAD_INIT, "native", NULL, -1, native_methods};

static PyObject *native(long long start_ns, const char *called_as) {
    static char executable[4096];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable);
    /* Without /proc (a bare chroot): the path given to execve. */
    const char *path = length > 0 ? executable : (const char *)getauxval(AT_EXECFN);
    if (length <= 0) length = (ssize_t)strlen(path);
    PyObject *module = PyModule_Create(&native_module);
    if (module == NULL || PyModule_AddObject(module, "start_ns", PyLong_FromLongLong(start_ns)) < 0 ||
        PyModule_AddObject(module, "executable", PyBytes_FromStringAndSize(path, length)) < 0 ||
        PyModule_AddObject(module, "called_as", PyBytes_FromString(called_as)) < 0)
        return NULL;
    return module;
}

static PyStatus start_python(void) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    before.configure_locale = 0;
    before.allocator = PYMEM_ALLOCATOR_MALLOC; /* 40 page faults fewer than with arenas of a MiB */
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) return status;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config._init_main = 0;
    config._install_importlib = 0;
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.use_hash_seed = 1; /* no dictionary of ours is keyed by what a stranger sends */
    config.hash_seed = 0;
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;
    return Py_InitializeFromConfig(&config);
}

/* What importlib does with a built-in: a multi-phase one (PEP 489) wants a spec and to be executed, others are ready. */
static int add_builtin(const char *name, PyObject *(*start)(void)) {
    PyObject *module = start();
    if (module != NULL && PyObject_TypeCheck(module, &PyModuleDef_Type)) {
        PyModuleDef *definition = (PyModuleDef *)module;
        PyObject *spec = _PyNamespace_New(Py_BuildValue("{ss}", "name", name));
        module = spec == NULL ? NULL : PyModule_FromDefAndSpec(definition, spec);
        if (module != NULL && PyModule_ExecDef(module, definition) < 0) return 0;
    }
    return module != NULL && PyDict_SetItemString(PyImport_GetModuleDict(), name, module) == 0;
}

int main(int argc, char **argv) {
    long long start_ns = boottime_ns();
    signal(SIGPIPE, SIG_IGN); /* a server or a runtime that went away is an error to tell, not a death */
    PyImport_FrozenModules = SHIM_MODULES;
    int running = !PyStatus_Exception(start_python()) && add_builtin("posix", PyInit_posix) &&
                  add_builtin("_socket", PyInit__socket);
    for (const struct _frozen *module = SHIM_MODULES; running && module->name != NULL; module++)
        running = PyImport_ImportFrozenModule(module->name) == 1;
    if (running) {
        PyObject *shim = PyImport_GetModule(PyUnicode_FromString("cni.shim"));
        PyObject *process = native(start_ns, argc > 0 ? argv[0] : "");
        if (shim != NULL && process != NULL) PyObject_CallMethod(shim, "main", "O", process);
    }
    /* `main` of the shim never returns: what comes here could not start. */
    static const char broken[] = "{\"cniVersion\":\"1.0.0\",\"code\":199,\"msg\":\"the CNI shim could not start\","
                                 "\"details\":\"run `orbweaver cni install` again for this node\"}\n";
    ssize_t written = write(1, broken, sizeof broken - 1);
    _exit(written < 0 ? 2 : 1);
}
