import { isIPv6 } from "node:net";

import { InvalidSpec } from "./errors.js";

/** Whether HOST:PORT is this host alone. */
export function isThisHost(server: string): boolean {
  let host: string;
  try {
    // Writes every form of an IPv4 address as four numbers, and takes the brackets of an IPv6 one as they are.
    host = new URL(`http://${server}`).hostname;
  } catch {
    return false;
  }
  const inner = host.replace(/^\[|\]$/g, "");
  return host === "localhost" || inner === "::1" || (!isIPv6(inner) && /^127\.\d+\.\d+\.\d+$/.test(host));
}

/**
 * Refuse to send a token where others could read it.
 *
 * @throws InvalidSpec ACCESS_INVALID.
 */
export function checkToken(server: string, encrypted: boolean): void {
  if (encrypted || isThisHost(server)) return;
  const message = "a token would leave this host in plaintext: use TLS";
  throw new InvalidSpec({ reason: "ACCESS_INVALID", message, field: "access.token" });
}
