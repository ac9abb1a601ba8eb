"""What python3-etcd3gw (the JSON gateway) finds a server to do; the first argument is its port."""
import sys
import threading
import time

from etcd3gw.client import Etcd3Client

client = Etcd3Client(port=int(sys.argv[1]), api_path='/v3/')


def refusal(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return 'nothing'


print('get', client.get('x'), client.put('x', '1'), client.get('x'))
client.put('y/1', 'a')
client.put('y/2', 'b')
print('prefix', [(v, m['key']) for v, m in client.get_prefix('y/')])
print('sorted', [v for v, _ in client.get_prefix('y/', sort_order='descend', sort_target='mod')])
print('create', client.create('x', 'n'), client.create('z', 'n'))
print('replace', client.replace('x', '1', '2'), client.replace('x', '1', '3'))
print('delete', client.delete('z'), client.delete('z'), client.delete_prefix('y/'))

lease = client.lease(ttl=10)
client.put('leased', '1', lease=lease)
print('lease', lease.ttl() <= 10, lease.keys(), lease.refresh(), lease.revoke(), client.get('leased'))

first, second = client.lock('line', ttl=10), client.lock('line', ttl=10)
print('lock', first.acquire(), first.is_acquired(), second.acquire(), first.release(), second.acquire(), second.release())

seen = []
events, cancel = client.watch('w')


def watch():
    for event in events:
        seen.append((event.get('type'), event['kv']['key'], event['kv'].get('value')))


watcher = threading.Thread(target=watch)
watcher.start()
client.put('w', '1')
client.delete('w')
while len(seen) < 2:
    time.sleep(0.01)
cancel()
watcher.join(5)
print('watch', seen, watcher.is_alive())
print('watch once', refusal(lambda: client.watch_once('w', timeout=1)))
print('members', [m['name'] for m in client.members()])
print('status', sorted(client.status()))
print('transaction', client.transaction({
    'compare': [{'key': 'eA==', 'result': 'EQUAL', 'target': 'VALUE', 'value': 'Mg=='}],
    'success': [{'request_put': {'key': 'eA==', 'value': 'MQ=='}}],
    'failure': []})['succeeded'], client.get('x'))
