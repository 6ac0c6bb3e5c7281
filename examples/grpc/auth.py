"""A client of Portico's AuthService.

    python auth.py verify TOKEN     who is behind a token
    python auth.py revoke TOKEN     end the session behind it
    python auth.py watch            every revocation, one line each

PORTICO_GRPC names the gRPC listener (127.0.0.1:9090), PORTICO_TOKEN the credential: an API key with the scopes
identity:token:introspect and identity:token:revoke, or on the same machine the operator's token.
"""

import os
import sys
import time

import grpc
from portico.identity.v1 import auth_pb2, auth_pb2_grpc

DEADLINE_S = 5


def verify(auth, metadata, token):
    answer = auth.VerifyToken(auth_pb2.VerifyTokenRequest(token=token), metadata=metadata, timeout=DEADLINE_S)
    if not answer.active:
        print(f"not good: {answer.reason}")
        return 1
    who = answer.principal
    print(f"{who.kind} {who.subject} tenant {who.tenant_id} roles {','.join(who.roles)} aal {who.aal}")
    return 0


def revoke(auth, metadata, token):
    auth.RevokeToken(auth_pb2.RevokeTokenRequest(token=token), metadata=metadata, timeout=DEADLINE_S)
    print("revoked")
    return 0


def watch(auth, metadata):
    seq = 0
    while True:
        # No deadline: the stream lives as long as both sides.
        stream = auth.WatchRevocations(auth_pb2.WatchRevocationsRequest(after_seq=seq), metadata=metadata)
        try:
            for message in stream:
                event = message.WhichOneof("event")
                told = getattr(message, event)
                seq = told.seq
                if event == "revocation":
                    kind = auth_pb2.RevocationKind.Name(told.kind).removeprefix("REVOCATION_KIND_").lower()
                    print(f"{seq} {kind} {told.subject} {told.cause}", flush=True)
                else:
                    print(f"{seq} {event}", flush=True)
        except grpc.RpcError as error:
            # The process stops, or is not there: another one, or the next, goes on from here.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(1)


def main():
    metadata = [("authorization", f"Bearer {os.environ['PORTICO_TOKEN']}")]
    with grpc.insecure_channel(os.environ.get("PORTICO_GRPC", "127.0.0.1:9090")) as channel:
        auth = auth_pb2_grpc.AuthServiceStub(channel)
        match sys.argv[1:]:
            case ["verify", token]:
                return verify(auth, metadata, token)
            case ["revoke", token]:
                return revoke(auth, metadata, token)
            case ["watch"]:
                return watch(auth, metadata)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
