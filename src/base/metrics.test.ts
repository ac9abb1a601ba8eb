import { expect, test } from 'vitest';
import { Metrics } from './metrics.ts';

test('a page is what Prometheus reads: help, type and values of each family', () => {
  const metrics = new Metrics();
  const counter = metrics.counter('things_total', 'Things.');
  metrics.gauge('level', 'A level.', () => [[{ side: 'left' }, 1.5]]);
  metrics.count('kept_total', 'Kept elsewhere.', () => 7);
  counter.add();
  counter.add({}, 2);
  expect(metrics.render()).toBe(
    [
      ...['# HELP things_total Things.', '# TYPE things_total counter', 'things_total 3'],
      ...['# HELP level A level.', '# TYPE level gauge', 'level{side="left"} 1.5'],
      ...['# HELP kept_total Kept elsewhere.', '# TYPE kept_total counter', 'kept_total 7'],
      '',
    ].join('\n'),
  );
});

test('a family without a value is left out', () => {
  const metrics = new Metrics();
  metrics.gauge('unknown', 'Not known.', () => undefined);
  metrics.histogram('quiet_seconds', 'Nothing yet.');
  expect(metrics.render()).toBe('\n');
});

test('buckets add up, and what is beyond the last is in all', () => {
  const metrics = new Metrics();
  const seconds = metrics.histogram(['a_seconds', 'b_seconds'], 'Times.');
  for (const time of [0.0001, 0.0005, 0.003, 100]) seconds.observe(time);
  const page = metrics.render();
  for (const name of ['a_seconds', 'b_seconds']) {
    expect(page).toContain(`${name}_bucket{le="0.0005"} 2\n`);
    expect(page).toContain(`${name}_bucket{le="0.004"} 3\n`);
    expect(page).toContain(`${name}_bucket{le="8.192"} 3\n`);
    expect(page).toContain(`${name}_bucket{le="+Inf"} 4\n`);
    expect(page).toContain(`${name}_count 4\n`);
  }
});

test('labels are escaped, and known ones are there from the start', () => {
  const metrics = new Metrics();
  metrics.counter('c_total', 'C.', [{ a: '"\n\\' }]);
  expect(metrics.render()).toContain('c_total{a="\\"\\n\\\\"} 0');
});

test('no two families have one name', () => {
  const metrics = new Metrics();
  metrics.counter('c_total', 'C.');
  expect(() => metrics.gauge('c_total', 'C.', () => 1)).toThrow('already');
});
