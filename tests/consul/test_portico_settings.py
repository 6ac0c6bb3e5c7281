"""Settings through py-consul: read, check-and-set, watch; the history of the settings shows it (CT-14)."""

import json
import threading

import consul
import pytest
import requests
from consul.exceptions import ConsulException

KEY = "portico/settings/gateway/breaker/open_s"


@pytest.fixture
def house(acl_consul_instance):
    instance, token = acl_consul_instance
    portico = instance.container
    client = consul.Consul(port=instance.port, token=token)

    def ask(path):
        answer = requests.get(
            f"{portico.http}/api/settings/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=10
        )
        answer.raise_for_status()
        return answer.json()

    return client, ask, instance.port


def test_read_cas_watch_and_history(house):
    client, ask, _ = house
    index, found = client.kv.get(KEY)
    assert json.loads(found["Value"]) == 30
    assert found["ModifyIndex"] == 0
    assert client.kv.put(KEY, "10", cas=found["ModifyIndex"])
    assert not client.kv.put(KEY, "11", cas=found["ModifyIndex"])
    index, found = client.kv.get(KEY)
    assert json.loads(found["Value"]) == 10 and found["ModifyIndex"] > 0
    assert ask("gateway.breaker.open_s")["value"] == 10

    seen = []
    watch = threading.Thread(target=lambda: seen.append(client.kv.get(KEY, index=index, wait="30s")))
    watch.start()
    assert client.kv.put(KEY, "12", cas=found["ModifyIndex"])
    watch.join(timeout=20)
    assert not watch.is_alive()
    new_index, news = seen[0]
    assert new_index > index and json.loads(news["Value"]) == 12

    assert client.kv.delete(KEY)
    _, found = client.kv.get(KEY)
    assert json.loads(found["Value"]) == 30
    history = ask("gateway.breaker.open_s/history")["items"]
    assert [(h["version"], h.get("value")) for h in history] == [(3, None), (2, 12), (1, 10)]
    assert all(h["actor"]["kind"] == "operator" for h in history)


def test_a_prefix_lists_settings_and_wrong_values_are_refused(house):
    client, _, port = house
    _, found = client.kv.get("portico/settings/gateway/breaker/", recurse=True)
    assert {f["Key"] for f in found} >= {KEY}
    _, names = client.kv.get("portico/settings/gateway/", keys=True, separator="/")
    assert "portico/settings/gateway/breaker/" in names
    for value in ["100000", '"x"', "not json"]:
        with pytest.raises(ConsulException):
            client.kv.put(KEY, value)
    with pytest.raises(ConsulException):
        client.kv.put("portico/settings/database/url", '"x"')
    _, secret = client.kv.get("portico/settings/mail/smtp/password")
    assert secret["Flags"] == 1 and not secret["Value"]
    assert client.kv.put("portico/settings/mail/smtp/password", '"hidden"')
    _, secret = client.kv.get("portico/settings/mail/smtp/password")
    assert secret["Flags"] == 1 and not secret["Value"] and secret["ModifyIndex"] > 0
    nobody = requests.get(f"http://127.0.0.1:{port}/v1/kv/{KEY}", timeout=10)
    assert nobody.status_code == 403
