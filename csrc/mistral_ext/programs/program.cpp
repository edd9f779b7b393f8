#include "mistral_ext/programs/program.h"

#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <new>

#include "mistral_ext/programs/interrupt.h"
#include "mistral_ext/version.h"

namespace mistral_ext::programs {
namespace {

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

int fail(const CLI::App& app, const std::string& message, int code = kFailed) {
  tell(app, "error: " + first_line(message));
  return code;
}

// torch has no type of its own for this on the CPU.
bool is_lack_of_memory(const std::string& message) {
  return message.find("can't allocate memory") != std::string::npos ||
         message.find("out of memory") != std::string::npos;
}

void flush_output() {
  std::cout.flush();
  if (!std::cout) throw std::runtime_error("cannot write to standard output");
}

}  // namespace

void tell(const CLI::App& app, const std::string& line) {
  std::cerr << app.get_name() << ": " << line << '\n';
}

int run_program(CLI::App& app,
                int argc,
                const char* const* argv,
                const std::function<void()>& run) {
  app.set_version_flag("--version", MISTRAL_EXT_VERSION);
  app.set_help_flag("-h,--help", "print this and leave");
  try {
    app.parse(argc, argv);
    run();
    flush_output();
    return 0;
  } catch (const CLI::Success& asked_for) {  // --help, --version
    return app.exit(asked_for);
  } catch (const CLI::ParseError& error) {
    return fail(app, error.what(), kWrongUse);
  } catch (const UsageError& error) {
    return fail(app, error.what(), kWrongUse);
  } catch (const Interrupted&) {
    std::cout << '\n' << std::flush;
    return kInterrupted;
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    return fail(app, is_lack_of_memory(message) ? "not enough memory: " + message : message);
  } catch (const std::bad_alloc&) {
    return fail(app, "not enough memory");
  } catch (const std::exception& error) {
    return fail(app, error.what());
  }
}

}  // namespace mistral_ext::programs
