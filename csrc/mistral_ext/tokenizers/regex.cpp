// The only file that sees PCRE2, which lies in the library as hidden as its headers.
#include "mistral_ext/tokenizers/regex.h"

#include <c10/macros/Export.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "mistral_ext/core/check.h"
#include "mistral_ext/io/printable.h"

namespace mistral_ext::tokenizers {
namespace {

constexpr size_t kLongestPattern = 16384;
constexpr size_t kMostCompiledBytes = size_t{4} << 20;
constexpr uint32_t kMostHeapKibibytes = 64 * 1024;

// What a search may cost in this thread's own time: a constant and some hundred times what a byte
// takes with a tokenizer's pattern. PCRE2 counts what it takes back, for each start, but not what
// it reads before, so its limit alone would let a pattern be quadratic. A start is first given few
// steps, which most need none of, then sixteen times as many where the time left allows for it.
constexpr int64_t kNanoseconds = 500'000'000;
constexpr int64_t kNanosecondsPerByte = 2'000;
constexpr uint32_t kFirstSteps = 100;
constexpr int kMoreSteps = 16;
// Starts tried in one call, and calls between two looks at the clock.
constexpr size_t kStartsPerCall = 8;
constexpr int kCallsPerLook = 16;

template <auto free_function>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    free_function(pointer);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using CodePointer = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

CodePointer compile(const std::string& pattern, int& error) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  TORCH_CHECK(context != nullptr, "regex: out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_compiled_length(context.get(), kMostCompiledBytes);
  size_t offset = 0;
  CodePointer code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                                 pattern.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C |
                                     PCRE2_NO_AUTO_CAPTURE | PCRE2_USE_OFFSET_LIMIT,
                                 &error,
                                 &offset,
                                 context.get()));
  // Where the system allows no code to be made at run time, the interpreter does the same.
  if (code != nullptr) pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

// Bytes of the character at `at`, or up to the end of the text.
size_t step(std::string_view text, size_t at) {
  size_t end = at + 1;
  while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
  return end - at;
}

}  // namespace

class Regex::Code {
 public:
  Code(std::string_view pattern, RegexSyntax syntax, const std::string& label) : label_(label) {
    MISTRAL_EXT_CHECK(pattern.size() <= kLongestPattern,
                      "{}: must be a regular expression of at most {} bytes, got {}",
                      label,
                      kLongestPattern,
                      pattern.size());
    int error = 0;
    code_ = compile(translate_regex(pattern, syntax, label), error);
    MISTRAL_EXT_CHECK(code_ != nullptr,
                      "{}: must be a regular expression, got \"{}\" ({})",
                      label,
                      io::printable(pattern),
                      message_of(error));
  }

  const pcre2_code* get() const { return code_.get(); }
  const std::string& label() const { return label_; }

 private:
  std::string label_;
  CodePointer code_;
};

namespace {

int64_t thread_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// One text being searched. What PCRE2 writes to is in here, so threads share nothing.
class Search {
 public:
  Search(const pcre2_code* code, const std::string& label, std::string_view text)
      : code_(code),
        label_(label),
        text_(text),
        context_(pcre2_match_context_create(nullptr)),
        data_(pcre2_match_data_create(1, nullptr)) {
    TORCH_CHECK(context_ != nullptr && data_ != nullptr, "regex: out of memory");
    pcre2_set_heap_limit(context_.get(), kMostHeapKibibytes);
  }

  // The first match that begins at `from` or later.
  bool next(size_t from, TextSpan& match) {
    while (from <= text_.size()) {
      auto last = std::min(from + kStartsPerCall - 1, text_.size());
      if (++calls_ % kCallsPerLook == 0) look();
      auto result = call(from, last, kFirstSteps);
      if (result == PCRE2_ERROR_MATCHLIMIT) {
        last = from;
        result = with_more_steps(from);
      }
      if (result >= 0) {
        const auto* ends = pcre2_get_ovector_pointer(data_.get());
        match = {ends[0], ends[1]};
        return true;
      }
      check(result);
      // The starts up to `last` are done, of which the last may lie inside a character.
      from = last;
      from += from < text_.size() ? step(text_, from) : 1;
    }
    return false;
  }

 private:
  // Time left. The clock starts at the first look: short texts never ask.
  int64_t look() {
    const auto now = thread_nanoseconds();
    if (end_ == 0) {
      end_ = now + kNanoseconds + kNanosecondsPerByte * static_cast<int64_t>(text_.size());
    }
    check(now <= end_ ? PCRE2_ERROR_NOMATCH : PCRE2_ERROR_MATCHLIMIT);
    return end_ - now;
  }

  int with_more_steps(size_t from) {
    auto left = look();
    for (uint64_t steps = kFirstSteps; steps * kMoreSteps < UINT32_MAX;) {
      steps *= kMoreSteps;
      const auto result = call(from, from, static_cast<uint32_t>(steps));
      if (result != PCRE2_ERROR_MATCHLIMIT) return result;
      const auto before = left;
      left = look();
      if ((before - left) * kMoreSteps > left) break;
    }
    return PCRE2_ERROR_MATCHLIMIT;
  }

  int call(size_t from, size_t last, uint32_t steps) {
    pcre2_set_match_limit(context_.get(), steps);
    pcre2_set_offset_limit(context_.get(), last);
    auto result = match(from, 0);
    // The compiled form has a small stack, the interpreter has the heap up to its limit.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(from, PCRE2_NO_JIT);
    return result;
  }

  int match(size_t from, uint32_t options) {
    // PCRE2 looks once whether the text is UTF-8; each time would be quadratic.
    const auto result = pcre2_match(code_,
                                    reinterpret_cast<PCRE2_SPTR>(text_.data()),
                                    text_.size(),
                                    from,
                                    options | (checked_ ? PCRE2_NO_UTF_CHECK : 0),
                                    data_.get(),
                                    context_.get());
    checked_ = true;
    return result;
  }

  void check(int result) const {
    if (result == PCRE2_ERROR_NOMATCH) return;
    const bool text_is_utf8 = result > PCRE2_ERROR_UTF8_ERR1 || result < PCRE2_ERROR_UTF8_ERR21;
    MISTRAL_EXT_CHECK(text_is_utf8,
                      "{}: the text must be UTF-8, and is none at byte {}",
                      label_,
                      pcre2_get_startchar(data_.get()));
    MISTRAL_EXT_CHECK(
        false,
        "{}: must find its matches in work and memory that grow with the text, got \"{}\" "
        "in a text of {} bytes",
        label_,
        message_of(result),
        text_.size());
  }

  const pcre2_code* code_;
  const std::string& label_;
  std::string_view text_;
  MatchContext context_;
  MatchData data_;
  int64_t end_ = 0;
  int calls_ = 0;
  bool checked_ = false;
};

}  // namespace

C10_EXPORT Regex::Regex(std::string_view pattern, RegexSyntax syntax, const std::string& label)
    : code_(std::make_shared<const Code>(pattern, syntax, label)) {}

C10_EXPORT std::vector<TextSpan> Regex::find_all(std::string_view text) const {
  std::vector<TextSpan> matches;
  // PCRE2 takes no null pointer, which an empty view may have.
  if (text.data() == nullptr) text = "";
  Search search(code_->get(), code_->label(), text);
  TextSpan match{};
  for (size_t from = 0; search.next(from, match);) {
    const bool empty = match.begin == match.end;
    if (empty && !matches.empty() && matches.back().end == match.end) {
      from = match.end + (match.end < text.size() ? step(text, match.end) : 1);
    } else {
      matches.push_back(match);
      from = match.end;
    }
  }
  return matches;
}

C10_EXPORT bool is_script(std::string_view name) {
  int error = 0;
  return compile("\\p{sc:" + std::string(name) + "}", error) != nullptr;
}

}  // namespace mistral_ext::tokenizers
