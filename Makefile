# SPDX-License-Identifier: Apache-2.0
#
# The whole build of Nexus, in one non-recursive file; `make help` lists the targets. Sources are
# globbed: a new .c file, test or technique folder needs no change here.
#
#   BUILD=dir                    where everything goes (build; build-asan when sanitized)
#   SANITIZE=address,undefined   the sanitized variant, in a folder of its own
#   V=1                          show whole commands
#   WERROR=1, DEVELOPER=1        warnings are errors, as `make test` has it
#   PREFIX= DESTDIR=             for `make install`
#   PART=                        some parts of `make truth`
#   PEER= GPU_BENCH_ARGS=        for `make bench-gpu`
#   TARGET= SECONDS= JOBS=       for `make fuzz`
#   EXTRA_CFLAGS= EXTRA_LDFLAGS= your own flags, added last

.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
SANITIZE ?=
BUILD ?= $(if $(SANITIZE),build-asan,build)
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
export CC
DEVELOPER ?=
WERROR ?= $(or $(DEVELOPER),$(if $(filter test test-long,$(MAKECMDGOALS)),1))

ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory

comma := ,
ifneq ($(filter-out address undefined leak thread,$(subst $(comma), ,$(SANITIZE))),)
$(error SANITIZE takes address, undefined, leak and thread, joined by commas, not '$(SANITIZE)')
endif

# `make V=1` shows commands; otherwise one short line for each file.
V ?=
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2);)

# --- What was found: config.mk is rewritten only when it changes, and make then starts over.
NO_CONFIG := help clean format check-format check-deps models fuzz fuzz-bundle
NEED := $(if $(filter test test-long demo setup,$(MAKECMDGOALS)),test,build)
ifneq ($(filter-out $(NO_CONFIG),$(or $(MAKECMDGOALS),all)),)
include $(BUILD)/config.mk
endif
$(BUILD)/config.mk: FORCE
	@harness/build/setup.sh $(NEED) $@
FORCE:

# --- Flags
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wundef -Wstrict-prototypes \
	-Wmissing-prototypes -Wwrite-strings -Wpointer-arith
OPTIMISE := $(if $(SANITIZE),-O1,-O3)
SANITIZERS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
	-fno-omit-frame-pointer)
BASE_CFLAGS = -std=gnu11 -g $(OPTIMISE) $(WARNINGS) $(SANITIZERS) -DNX_VERSION='"$(VERSION)"'
BASE_LDFLAGS = $(SANITIZERS)
LDLIBS = $(LIB_LIBS) -lpthread -lm
# For what is carried to another machine: HDF5's shared library wants curl, Kerberos and LDAP beside it, for
# storage in clouds that nobody asks for; its archive, where there is one, does not. DT_RPATH, not
# DT_RUNPATH, so that the libraries' own libraries are found there, too.
HDF5_ARCHIVE = $(firstword $(wildcard $(patsubst -L%,%/libhdf5.a,$(filter -L%,$(LIB_LIBS)))))
CARRIED_LDLIBS = -Wl,--as-needed $(if $(HDF5_ARCHIVE),$(patsubst -lhdf5%,$(HDF5_ARCHIVE),$(LIB_LIBS)) \
	-lsz -lz -ldl,$(LIB_LIBS)) -lpthread -lm -Wl,--disable-new-dtags

# Floors hold because a folder's include path shows it nothing else.
PUBLIC := -Iharness/include -Ikernels/include
SHARED_CFLAGS := -fPIC -fvisibility=hidden
SHARED_LDFLAGS := -shared -Wl,-z,defs
HARNESS_CFLAGS = -Iharness $(PUBLIC) $(LIB_CFLAGS)
TEST_CFLAGS = -Iharness/test/check -Iharness -Iharness/test $(PUBLIC) -Ikernels $(LIB_CFLAGS) $(CHECK_CFLAGS)
PLUGIN_CFLAGS := $(PUBLIC) $(SHARED_CFLAGS)
KERNEL_CFLAGS = $(PUBLIC) -Ikernels $(SHARED_CFLAGS) -ffp-contract=off $(if $(SANITIZE),-O2,-O3) \
	$(DNNL_CFLAGS)
AVX2 := -mavx2 -mfma -mf16c
AVX512 := $(AVX2) -mavx512f -mavx512bw -mavx512vl -mavx512dq
AVX512BF16 := $(AVX512) -mavx512bf16
AVX512VNNI := $(AVX512) -mavx512vnni

# The flags of one source file, by its path; instruction sets go by the end of its name.
isa = $(if $(filter %_avx2.c,$(1)),$(AVX2))$(if $(filter %_avx512.c,$(1)),$(AVX512))$(if \
	$(filter %_avx512bf16.c,$(1)),$(AVX512BF16))$(if $(filter %_avx512vnni.c,$(1)),$(AVX512VNNI))
flags_of = $(strip $(if $(filter harness/test/plugins/% harness/test/backends/%,$(1)),$(PLUGIN_CFLAGS),$(if \
	$(or $(filter harness/test/%,$(1)),$(filter test_%,$(notdir $(1)))),$(TEST_CFLAGS),$(if \
	$(filter harness/%,$(1)),$(HARNESS_CFLAGS),$(if \
	$(filter kernels/%,$(1)),$(KERNEL_CFLAGS) $(call isa,$(1)),$(PLUGIN_CFLAGS))))))

# --- Sources
FLOORS := base model engine measure record present cli
HARNESS_SRC := $(wildcard $(FLOORS:%=harness/%/*.c))
CPU_SRC := $(wildcard kernels/cpu/*.c)
BENCH_SRC := $(wildcard kernels/bench/bench_*.c)
GPU_TEST_SRC := $(wildcard kernels/test/test_cuda_*.c harness/test/test_gpu_*.c)
KERNEL_TEST_SRC := $(filter-out $(GPU_TEST_SRC),$(wildcard kernels/test/test_*.c))
KERNEL_TEST_HELP_SRC := $(filter-out kernels/test/test_%,$(wildcard kernels/test/*.c))
TEST_SRC := $(filter-out $(GPU_TEST_SRC),$(wildcard harness/test/test_*.c techniques/*/test_*.c)) $(KERNEL_TEST_SRC)
TEST_HELP_SRC := $(filter-out harness/test/test_%,$(wildcard harness/test/*.c))
TEST_PLUGIN_SRC := $(wildcard harness/test/plugins/*.c)
LATE_SRC := $(wildcard harness/test/backends/late*.c)
FUZZ_SRC := $(wildcard harness/test/fuzz/*.c)
FUZZ_HELP_SRC := $(filter-out harness/test/fuzz/fuzz_%,$(FUZZ_SRC))
TECHNIQUES := $(sort $(foreach c,$(wildcard techniques/*/*.c),$(word 2,$(subst /, ,$(c)))))
# The CUDA backend: CUDA C++ and one wrapper in C++, where an nvcc was found that knows the target.
CUDA_SRC := $(wildcard kernels/cuda/*.cu kernels/cuda/*.cpp)
# bench_gpu, and the peers in the tree: one shared object each, where what they want is there.
GPU_BENCH_SRC := $(wildcard kernels/bench/bench_gpu*.cu)
GPU_PEER_SRC := $(wildcard kernels/bench/peer_*.cu)
CUDA_ARCH ?= 90a
CUDA_HOME = $(patsubst %/bin/nvcc,%,$(NVCC))
NVCC_FLAGS = -std=c++17 -O3 -lineinfo -gencode=arch=compute_$(CUDA_ARCH),code=sm_$(CUDA_ARCH) $(PUBLIC) -Ikernels \
	-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-missing-field-initializers,-Wno-unused-parameter \
	$(if $(WERROR),-Xcompiler=-Werror --Werror=all-warnings)
HEADERS := $(wildcard harness/*/*.h harness/include/nexus/*.h kernels/*/*.h kernels/include/*/*.h)
FORMATTED := $(HEADERS) $(HARNESS_SRC) $(CPU_SRC) $(TEST_SRC) $(TEST_HELP_SRC) $(TEST_PLUGIN_SRC) \
	$(LATE_SRC) $(FUZZ_SRC) $(KERNEL_TEST_HELP_SRC) $(GPU_TEST_SRC) $(CUDA_SRC) $(wildcard harness/test/backends/*.h \
	harness/test/fuzz/*.h kernels/cuda/*.cuh kernels/test/*.cu kernels/bench/*.c techniques/*/*.c techniques/*/*.h)

OBJ := $(BUILD)/obj
LIBRARY := $(BUILD)/libnexus.a
TEST_LIBRARY := $(BUILD)/libtest.a
KERNEL_TEST_LIBRARY := $(BUILD)/libkerneltest.a
BACKENDS := $(if $(CPU_SRC),$(BUILD)/backends/cpu.so)
CUDA_BACKEND := $(if $(SANITIZE),,$(BUILD)/backends/cuda.so)
CUDA_OBJECTS = $(CUDA_SRC:%=$(OBJ)/%.o)
PLUGINS := $(TECHNIQUES:%=$(BUILD)/techniques/%.so)
TEST_PLUGINS := $(TEST_PLUGIN_SRC:harness/test/plugins/%.c=$(BUILD)/test-plugins/%.so)
TEST_BACKENDS := $(if $(LATE_SRC),$(BUILD)/test-backends/late.so)
FORMATTED += $(wildcard kernels/bench/*.cu kernels/bench/*.cuh)
GPU_BENCH := $(if $(GPU_BENCH_SRC),$(BUILD)/bench/bench_gpu)
GPU_PEERS = $(patsubst kernels/bench/%.cu,$(BUILD)/bench/%.so,$(if $(wildcard $(CUDA_HOME)/include/cublasLt.h),\
	$(GPU_PEER_SRC),$(filter-out %cublaslt.cu,$(GPU_PEER_SRC))))
BENCHES := $(BENCH_SRC:kernels/bench/%.c=$(BUILD)/bench/%)
tests_of = $(patsubst %.c,$(BUILD)/tests/%,$(notdir $(1)))
TESTS := $(call tests_of,$(TEST_SRC))
GPU_TESTS := $(call tests_of,$(GPU_TEST_SRC))
FUZZERS := $(patsubst harness/test/fuzz/%.c,$(BUILD)/%,$(filter harness/test/fuzz/fuzz_%,$(FUZZ_SRC)))
PROGRAM := $(if $(wildcard harness/cli/main.c),$(BUILD)/nexus)
ifneq ($(words $(TESTS)),$(words $(sort $(TESTS))))
$(error two test files have one name: $(sort $(TEST_SRC)))
endif

# --- Rules
.PHONY: all setup test test-long test-gpu bench bench-gpu bench-peer demo docs truth cuda models install bundle fuzz fuzz-bundle format \
	check-format check-deps check-headers clean help tests features FORCE

all: features $(LIBRARY) $(PROGRAM) $(BACKENDS) $(if $(CUDA_FITS),$(CUDA_BACKEND)) $(PLUGINS) ## Build the program, the CPU backend and the techniques (default)
tests: all $(TEST_PLUGINS) $(TEST_BACKENDS) $(TESTS)

features: $(BUILD)/flags
	@printf '  %s: %s\n' '$(BUILD)' '$(FEATURES)'

# Everything is rebuilt when the flags change. -Werror is left out: it changes no object.
FLAGS = $(CC) $(BASE_CFLAGS) | $(BASE_LDFLAGS) $(LDLIBS) | $(HARNESS_CFLAGS) | $(TEST_CFLAGS) | \
	$(PLUGIN_CFLAGS) | $(KERNEL_CFLAGS) | $(AVX512BF16) $(AVX512VNNI) | $(EXTRA_CFLAGS) | $(EXTRA_LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS))' | cmp -s - $@ || \
		printf '%s\n' '$(subst ','\'',$(FLAGS))' >$@

# What the run file says of the source; only facts.c sees it, so a commit rebuilds one file.
$(BUILD)/commit.h: FORCE
	@mkdir -p $(@D)
	@{ echo '#define NX_COMMIT "'"$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"'"'; \
	   echo '#define NX_DIRTY "'"$$(git rev-parse HEAD >/dev/null 2>&1 && { git diff --quiet HEAD -- \
		&& echo no || echo yes; } || echo unknown)"'"'; \
	   echo '#define NX_CFLAGS "$(subst ",,$(CC) $(OPTIMISE) $(SANITIZERS))"'; } >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(OBJ)/harness/record/facts.o: $(BUILD)/commit.h
$(OBJ)/harness/record/facts.o: EXTRA_CFLAGS += -include $(BUILD)/commit.h

$(OBJ)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE_CFLAGS) $(call flags_of,$<) $(if $(WERROR),-Werror) $(EXTRA_CFLAGS) \
		-MMD -MP -c -o $@ $<

objects = $(patsubst %.c,$(OBJ)/%.o,$(1))
archive = $(call say,AR,$@)rm -f $@ && ar qcsD $@ $(filter %.o,$^)
link = $(call say,LD,$@)mkdir -p $(@D) && $(CC) $(BASE_LDFLAGS) $(EXTRA_LDFLAGS) -o $@ $(filter %.o %.a,$^)
shared = $(link) $(SHARED_LDFLAGS)

$(LIBRARY): $(call objects,$(filter-out harness/cli/main.c,$(HARNESS_SRC)))
	$(archive)
$(TEST_LIBRARY): $(call objects,$(TEST_HELP_SRC))
	$(archive)
$(KERNEL_TEST_LIBRARY): $(call objects,$(KERNEL_TEST_HELP_SRC))
	$(archive)
$(BUILD)/nexus: $(OBJ)/harness/cli/main.o $(LIBRARY)
	$(link) $(LDLIBS)
$(BUILD)/backends/cpu.so: $(call objects,$(CPU_SRC))
	$(shared) $(DNNL_LIBS) -lpthread -lm
$(OBJ)/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVCC_FLAGS) -MD -MP -MF $(@:.o=.d) -c -o $@ $<
$(OBJ)/%.cpp.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVCC_FLAGS) -MD -MP -MF $(@:.o=.d) -c -o $@ $<
# cuBLASLt, CUPTI and NVML are opened when they are wanted, and the driver by the runtime, which is inside.
$(CUDA_BACKEND): $(CUDA_OBJECTS)
	$(call say,LD,$@)mkdir -p $(@D) && $(NVCC) -shared -cudart static -Xlinker=-z,defs,--exclude-libs,ALL -o $@ $^ -ldl

$(TEST_PLUGINS): $(BUILD)/test-plugins/%.so: $(OBJ)/harness/test/plugins/%.o
	$(shared) -lm

$(BUILD)/test-backends/late.so: $(call objects,$(LATE_SRC))
	$(shared)

define technique
$(BUILD)/techniques/$(1).so: $(call objects,$(filter-out techniques/$(1)/test_%,$(wildcard techniques/$(1)/*.c)))
	$$(shared) -lm
endef
$(foreach t,$(TECHNIQUES),$(eval $(call technique,$(t))))

define test
$(call tests_of,$(1)): $(call objects,$(1)) $(2) $(LIBRARY)
	$$(link) $$(CHECK_LIBS) $$(LDLIBS)
endef
$(foreach t,$(TEST_SRC) $(GPU_TEST_SRC),$(eval $(call test,$(t),$(if \
	$(filter kernels/%,$(t)),$(KERNEL_TEST_LIBRARY),$(if \
	$(filter %/test_fuzz_corpus.c,$(t)),$(call objects,$(FUZZ_SRC))) $(TEST_LIBRARY)))))

# Work of known size on the GPU, which the test of the instruments opens.
$(BUILD)/tests/test_cuda_instruments: $(if $(CUDA_FITS),$(BUILD)/tests/cuda_work.so)
$(BUILD)/tests/cuda_work.so: $(OBJ)/kernels/test/cuda_work.cu.o
	$(call say,LD,$@)mkdir -p $(@D) && $(NVCC) -shared -cudart static -Xlinker=-z,defs,--exclude-libs,ALL -o $@ $^

$(BUILD)/carried/nexus: $(OBJ)/harness/cli/main.o $(LIBRARY)
	$(link) $(CARRIED_LDLIBS) -Wl,-rpath,'$$ORIGIN/../lib'
# As `make fuzz` asks for them, with clang: see harness/test/fuzz/fuzz.sh.
$(FUZZERS): $(BUILD)/fuzz_%: $(OBJ)/harness/test/fuzz/fuzz_%.o $(call objects,$(FUZZ_HELP_SRC)) \
	$(TEST_LIBRARY) $(LIBRARY)
	$(link) -fsanitize=fuzzer -rdynamic $(CARRIED_LDLIBS) -Wl,-rpath,'$$ORIGIN/lib'
.PHONY: fuzzers
fuzzers: $(FUZZERS) $(PLUGINS)

$(BENCHES): $(BUILD)/bench/%: $(OBJ)/kernels/bench/%.o $(LIBRARY)
	$(link) $(LDLIBS)

-include $(patsubst %,$(OBJ)/%.d,$(GPU_BENCH_SRC) $(GPU_PEER_SRC))
$(GPU_BENCH): $(GPU_BENCH_SRC:%=$(OBJ)/%.o)
	$(call say,LD,$@)mkdir -p $(@D) && $(NVCC) -cudart static -o $@ $^ -ldl
$(GPU_PEERS): $(BUILD)/bench/%.so: $(OBJ)/kernels/bench/%.cu.o
	$(call say,LD,$@)mkdir -p $(@D) && $(NVCC) -shared -cudart static -Xlinker=-z,defs,--exclude-libs,ALL \
		-Xlinker=-rpath,$(CUDA_HOME)/lib64 -o $@ $^ $(if $(filter %cublaslt.so,$@),-lcublasLt) -ldl

-include $(patsubst %.c,$(OBJ)/%.d,$(HARNESS_SRC) $(CPU_SRC) $(TEST_SRC) $(TEST_HELP_SRC) \
	$(TEST_PLUGIN_SRC) $(LATE_SRC) $(FUZZ_SRC) $(KERNEL_TEST_HELP_SRC) $(GPU_TEST_SRC) $(BENCH_SRC) $(wildcard techniques/*/*.c)) \
	$(patsubst %,$(OBJ)/%.d,$(CUDA_SRC) kernels/test/cuda_work.cu)

# --- What people call
setup: $(BUILD)/config.mk ## Find the libraries; as root, install what is missing
	@printf '  %s\n' '$(FEATURES)'

# Tests run sanitized; those of the kernels and of real models also as released, where the optimiser has its way.
SANITIZED := $(if $(SANITIZE),$(BUILD),$(BUILD)-asan)
# Those that mostly wait for processes, or that other suites go through sanitized, run as released; sanitized instead in
# make test-long.
AS_RELEASED := $(if $(SANITIZE)$(filter test-long,$(MAKECMDGOALS)),,$(call tests_of,$(addsuffix .c,test_outside test_drafts \
	test_sweep test_faults test_faults_disk test_instruments test_model_runs test_profile test_quality test_void)))
RUN_SANITIZED = $(filter-out $(AS_RELEASED),$(TESTS))
RUN_RELEASED = $(if $(SANITIZE),,$(call tests_of,$(KERNEL_TEST_SRC) test_oracle.c test_stacks.c) $(AS_RELEASED))
# The longest first: they end beside the others, not after them.
FIRST = $(filter %/test_stacks %/test_faults_disk %/test_drafts %/test_cpu_law,$1)
longest_first = $(FIRST) $(filter-out $(FIRST),$1)
TEST_RUN = $(call longest_first,$(RUN_SANITIZED:$(BUILD)/%=$(SANITIZED)/%) $(RUN_RELEASED))
test: check-deps check-headers test-builds ## Run every test: under ASan and UBSan, kernels and what waits for processes as released
	@harness/build/check-format.sh "$(CLANG_FORMAT)" $(FORMATTED) || true
	@harness/build/run-tests.sh $(TEST_RUN)

test-gpu: all tests $(GPU_TESTS) ## On a machine with a GPU: kernels against the CPU's, engine and stacks on cuda:0
	@harness/build/run-tests.sh $(GPU_TESTS)
	@NEXUS_TEST_DEVICE=cuda:0 NEXUS_CUDA_HOST_MEMORY=1 harness/build/run-tests.sh $(BUILD)/tests/test_stacks $(BUILD)/tests/test_counted

.PHONY: test-builds test-parts
test-parts: all $(TEST_PLUGINS) $(TEST_BACKENDS)
test-builds: test-parts $(if $(SANITIZE),$(TESTS),$(RUN_RELEASED))
ifeq ($(SANITIZE),)
	@$(MAKE) SANITIZE=address,undefined BUILD=$(SANITIZED) WERROR=$(WERROR) test-parts \
		$(RUN_SANITIZED:$(BUILD)/%=$(SANITIZED)/%)
endif

test-long: export NEXUS_TEST_LONG := 1
test-long: test ## The same with the slow cases (NEXUS_TEST_LONG=1), and the bundle in an empty chroot
	@$(MAKE) bundle
	@harness/test/bundle_chroot.sh $(BUILD)/nexus-$(VERSION)-$$(uname -m)

demo: all ## Run experiments/quick.yaml, then write its report and plots
	@harness/build/demo.sh $(BUILD)/nexus experiments/quick.yaml

DOCS := techniques/README.md $(TECHNIQUES:%=techniques/%/README.md)
docs: all ## Write tables of parameters and of what stacks with what into the READMEs
	@harness/build/docs.sh $(BUILD)/nexus $(DOCS)

truth: all $(TEST_PLUGINS) ## Are verdicts true on this machine? An hour of quiet; PART="aa power" runs some; DEVICE=cuda:0
	@harness/build/truth.sh $(BUILD)/nexus $(BUILD)/test-plugins $(PART)

bench: all $(BENCHES) ## Time the kernels, then the whole engine
	@for b in $(BENCHES); do echo "== $$b"; NEXUS_BUILD=$(abspath $(BUILD)) $$b || exit 1; done
	@for m in nano smollm2; do case $$m in smollm2) f=experiments/models/smollm2-135m-instruct-q4_1.gguf;; \
		*) f=experiments/models/$$m/$$m.gguf;; esac; \
		if [ -e $$f ]; then echo "== nexus bench --model $$m"; $(BUILD)/nexus bench --model $$m || exit 1; \
		else echo "== $$m is not there (make models): left out"; fi; done

PYTHON ?= python3
bench-peer: all ## Time SmolLM2 beside llama.cpp; PYTHON= one that has llama-cpp-python and numpy
	@$(PYTHON) kernels/bench/peer_llama.py --nexus $(BUILD)/nexus \
		--model experiments/models/smollm2-135m-instruct-q4_1.gguf $(PEER_ARGS)

# peers.py takes our limits and rows from gpu.json; without torch it is left out, and said so.
bench-gpu: ## On a machine with a GPU: kernels against its limits and peers; PEER="a.so", PYTHON= with torch
	@$(if $(CUDA_FITS),$(MAKE) $(CUDA_BACKEND) $(GPU_BENCH) $(GPU_PEERS),echo "bench-gpu: $(CUDA_WHY)" >&2; exit 3)
	@NEXUS_BUILD=$(abspath $(BUILD)) $(GPU_BENCH) $(addprefix --peer ,$(GPU_PEERS) $(PEER)) \
		--json $(BUILD)/bench/gpu.json $(GPU_BENCH_ARGS)
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then \
		$(PYTHON) kernels/bench/peers.py --beside $(BUILD)/bench/gpu.json \
			$(filter-out --invariant,$(GPU_BENCH_ARGS)); \
	else echo 'bench-gpu: $(PYTHON) has no torch: peers.py is left out (PYTHON=)' >&2; fi

cuda: ## The CUDA backend alone; `make` builds it too where a fitting nvcc is found
	@$(if $(CUDA_FITS),$(MAKE) $(CUDA_BACKEND),echo "cuda: $(CUDA_WHY)" >&2; exit 3)

models: ## Download SmolLM2-135M-Instruct (98 MB) into experiments/models
	@harness/build/models.sh

install: all ## Install under $(DESTDIR)$(PREFIX): program, techniques, headers, a model, templates
	@BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) VERSION=$(VERSION) harness/build/install.sh

bundle: all $(BUILD)/carried/nexus ## A folder and a tar.gz that run on a machine without packages
	@BUILD=$(BUILD) VERSION=$(VERSION) harness/build/bundle.sh

# bash counts a SECONDS of its own, so one from the environment does not count.
SECONDS := 60
JOBS ?= 1
fuzz: ## Fuzz a reader with libFuzzer: TARGET=gguf SECONDS=60 JOBS=1; without TARGET, list them
	@BUILD=$(BUILD) MAKE='$(MAKE)' harness/test/fuzz/fuzz.sh run "$(TARGET)" "$(SECONDS)" "$(JOBS)"
fuzz-bundle: ## All fuzz targets in a folder that runs on a machine without packages
	@BUILD=$(BUILD) MAKE='$(MAKE)' harness/test/fuzz/fuzz.sh bundle

check-deps: ## Check that no file includes a floor above its own
	@harness/build/check-deps.sh

check-headers: $(BUILD)/headers.ok ## Compile each header alone, public ones also as C++ and CUDA
$(BUILD)/headers.ok: $(HEADERS) harness/build/check-headers.sh $(BUILD)/flags
	$(call say,CHECK,headers)CC='$(CC)' NVCC='$(NVCC)' LIB_CFLAGS='$(LIB_CFLAGS)' \
		harness/build/check-headers.sh $(HEADERS) && touch $@

format: ## Format the C files with clang-format 14
	$(call say,FMT,)harness/build/check-format.sh --fix "" $(FORMATTED)
check-format: ## Check their format, changing nothing
	@harness/build/check-format.sh "" $(FORMATTED)

clean: ## Remove the build folders
	rm -rf $(BUILD) $(if $(SANITIZE),,$(BUILD)-asan $(BUILD)-fuzz)

help: ## This list
	@echo "make [target] [BUILD=dir] [SANITIZE=address,undefined] [V=1] [WERROR=1]"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'\t' '{ printf "  %-14s %s\n", $$1, $$2 }'
