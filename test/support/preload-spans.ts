/** For `node --import`: an OpenTelemetry SDK that writes the name of every span to standard error. */
import { trace } from '@opentelemetry/api';
import { BasicTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';

const exporter = {
  export(spans: readonly { readonly name: string }[], done: (result: { code: number }) => void) {
    for (const { name } of spans) process.stderr.write(`span ${name}\n`);
    done({ code: 0 });
  },
  shutdown: () => Promise.resolve(),
};

trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
);
