"""What python3-etcd3 (gRPC in C) finds a server to do; the first argument is its port."""
import sys
import threading
import time

import etcd3

client = etcd3.client(port=int(sys.argv[1]), timeout=10)


def refusal(call):
    try:
        call()
    except Exception as error:  # Its kind, and what the server said.
        return type(error).__name__, str(getattr(error, 'details', lambda: '')())
    return 'nothing'


print('get', client.get('nothing'))
client.put('k', 'v1')
value, meta = client.get('k')
print('put', value, meta.version, meta.lease_id)
print('former', client.put('k', 'v2', prev_kv=True).prev_kv.value)
print('new only', client.put_if_not_exists('k', 'x'), client.put_if_not_exists('new', 'x'))
print('replace', client.replace('k', 'v2', 'v3'), client.replace('k', 'nope', 'v4'))
of = client.transactions
print('transaction', client.transaction(
    compare=[of.value('k') == 'v3', of.version('k') > 0],
    success=[of.put('a', '1'), of.get('k'), of.delete('new')],
    failure=[of.put('a', '0')])[0])
for i in range(5):
    client.put('p/%d' % i, str(i))
print('prefix', [(v, m.key) for v, m in client.get_prefix('p/', sort_order='descend')])
print('range', [v for v, _ in client.get_range('p/1', 'p/3')])
print('delete', client.delete('a'), client.delete('a'), client.delete_prefix('p/').deleted)

lease = client.lease(5)
client.put('leased', '1', lease)
print('lease', lease.granted_ttl, lease.remaining_ttl <= 5, lease.keys, [r.TTL for r in lease.refresh()])
lease.revoke()
print('revoked', client.get('leased'))

seen = []
events, cancel = client.watch_prefix('w/')


def watch():
    for event in events:
        seen.append((type(event).__name__, event.key, event.value))


watcher = threading.Thread(target=watch)
watcher.start()
client.put('w/1', 'a')
client.delete('w/1')
while len(seen) < 2:
    time.sleep(0.01)
cancel()
watcher.join(5)
print('watch', seen, watcher.is_alive())
print('watch once', refusal(lambda: client.watch_once('never', timeout=1)))

lock = client.lock('line', ttl=10)
print('lock', lock.acquire(), lock.is_acquired(), lock.release(), lock.is_acquired())
with client.lock('line', ttl=10) as held:
    print('lock again', held.is_acquired())

print('members', [(m.name, len(m.client_urls)) for m in client.members])
status = client.status()
print('status', status.version.split('.')[0], status.db_size > 0, status.leader is not None)
print('alarms', list(client.list_alarms()), len(list(client.create_alarm())), len(list(client.disarm_alarm())))
print('compact', refusal(lambda: client.compact(100_000)))
client.put('k', 'z')
client.compact(client.get_response('k').header.revision)
past, _ = client.watch('k', start_revision=1)
print('past', refusal(lambda: next(past)))
client.defragment()
print('hash', client.hash() > 0)
print('login', refusal(lambda: etcd3.client(port=int(sys.argv[1]), user='u', password='p')))
