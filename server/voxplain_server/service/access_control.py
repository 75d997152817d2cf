"""From the settings of access to what stands at the service port."""

from __future__ import annotations

import grpc

from voxplain_server.access import Access
from voxplain_server.service.access_guard import AccessGuard
from voxplain_server.service.access_policy import built_in_policy, read_policy
from voxplain_server.service.call_observer import CallObserver


def guard_of(access: Access, observer: CallObserver) -> AccessGuard:
    """What stands before every method.

    Raises:
        AccessRefused: the policy or the file of keys cannot be read.
    """
    tokens = None
    if access.token_keys is not None:
        # Only where tokens are asked for: the libraries behind it take memory and time.
        from voxplain_server.service.token_check import TokenCheck
        from voxplain_server.service.token_keys import TokenKeys

        tokens = TokenCheck(TokenKeys(access.token_keys), issuer=access.token_issuer, audience=access.token_audience)
    if access.policy is None:
        policy = built_in_policy(tokens=tokens is not None)
    else:
        policy = read_policy(access.policy, tokens=tokens is not None, certificates=access.tls_client_ca is not None)
    return AccessGuard(policy, tokens=tokens, observer=observer)


def credentials_of(access: Access) -> grpc.ServerCredentials | None:
    """What the port is bound with; None: plaintext.

    Raises:
        AccessRefused: the TLS files cannot be used.
    """
    if not access.encrypted:
        return None
    from voxplain_server.service.certificates import Certificates

    return Certificates(access).credentials()
