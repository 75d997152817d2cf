#pragma once

#include <string>

namespace voxplain {

/// Whether HOST:PORT, with or without gRPC's dns:, ipv4: or ipv6:, or unix:PATH, is this host alone.
bool is_this_host(std::string server);

/// Throws InvalidSpec where a token would go to another host in plaintext.
void check_token(const std::string& server, bool encrypted);

}  // namespace voxplain
