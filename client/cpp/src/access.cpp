#include "access.hpp"

#include <regex>

#include "voxplain/errors.hpp"

namespace voxplain {

bool is_this_host(std::string server) {
  if (server.rfind("unix:", 0) == 0 || server.rfind("unix-abstract:", 0) == 0) return true;
  static const std::regex kScheme("^(dns:(//[^/]*/)?|ipv4:|ipv6:)");
  server = std::regex_replace(server, kScheme, "");
  std::string host = server;
  if (server.rfind("[", 0) == 0) {
    host = server.substr(1, server.find(']') - 1);
  } else if (const auto colon = server.rfind(':'); colon != std::string::npos && server.find(':') == colon) {
    host = server.substr(0, colon);
  }
  static const std::regex kLoopback("127(\\.[0-9]{1,3}){3}");
  return host == "localhost" || host == "::1" || std::regex_match(host, kLoopback);
}

void check_token(const std::string& server, bool encrypted) {
  if (encrypted || is_this_host(server)) return;
  throw InvalidSpec({"ACCESS_INVALID", "a token would leave this host in plaintext: use TLS", "access.token"});
}

}  // namespace voxplain
