/** Two other implementations of protobuf on the same `.proto` files, to compare with. */
import { readdirSync, readFileSync } from 'node:fs';
import { create, createFileRegistry, type Registry } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  type EnumDescriptorProto,
  EnumDescriptorProtoSchema,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import protobuf from 'protobufjs';

const FOLDER = new URL('../../src/wire/messages/proto/', import.meta.url);

/** protobufjs, which reads the files itself. */
export function protobufJs(): protobuf.Root {
  const root = new protobuf.Root();
  for (const name of readdirSync(FOLDER)) {
    const text = readFileSync(new URL(name, FOLDER), 'utf8').replace(/^import .*$/gm, '');
    protobuf.parse(text, root, { keepCase: true });
  }
  root.resolveAll();
  return root;
}

/** protobuf-es, on descriptors made of what protobufjs has read. */
export function protobufEs(root: protobuf.Root): Registry {
  const packages = new Map<string, (protobuf.Type | protobuf.Enum)[]>();
  const visit = (namespace: protobuf.NamespaceBase): void => {
    for (const item of namespace.nestedArray) {
      if (item instanceof protobuf.Type || item instanceof protobuf.Enum) {
        const name = namespace.fullName.slice(1);
        packages.set(name, [...(packages.get(name) ?? []), item]);
      } else if (item instanceof protobuf.Namespace) visit(item);
    }
  };
  visit(root);
  const names = [...packages.keys()];
  const file = names.map((name, i) =>
    create(FileDescriptorProtoSchema, {
      name: `${name}.proto`,
      package: name,
      syntax: 'proto3',
      // In the order of the folder's listing, in which uses come after what they use.
      dependency: order(names)
        .slice(0, order(names).indexOf(name))
        .map((other) => `${other}.proto`),
      messageType: packages
        .get(names[i]!)!
        .flatMap((t) => (t instanceof protobuf.Type ? [message(t)] : [])),
      enumType: packages
        .get(names[i]!)!
        .flatMap((t) => (t instanceof protobuf.Enum ? [enumeration(t)] : [])),
    }),
  );
  file.sort((a, b) => order(names).indexOf(a.package) - order(names).indexOf(b.package));
  return createFileRegistry(create(FileDescriptorSetSchema, { file }));
}

const FIRST = ['mvccpb', 'authpb', 'etcdserverpb'];

/** Packages that others use come first. */
function order(names: readonly string[]): readonly string[] {
  return [...FIRST, ...names.filter((name) => !FIRST.includes(name))];
}

function message(type: protobuf.Type): DescriptorProto {
  return create(DescriptorProtoSchema, {
    name: type.name,
    field: type.fieldsArray.map((item) => {
      const { resolvedType } = item;
      const kind =
        resolvedType instanceof protobuf.Enum
          ? 'ENUM'
          : resolvedType
            ? 'MESSAGE'
            : (item.type.toUpperCase() as keyof typeof FieldDescriptorProto_Type);
      return create(FieldDescriptorProtoSchema, {
        name: item.name,
        // A compiler fills this in by protobuf's rule.
        jsonName: item.name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
        number: item.id,
        label: item.repeated
          ? FieldDescriptorProto_Label.REPEATED
          : FieldDescriptorProto_Label.OPTIONAL,
        type: FieldDescriptorProto_Type[kind as 'ENUM'],
        ...(resolvedType && { typeName: resolvedType.fullName }),
        ...(item.partOf && { oneofIndex: type.oneofsArray.indexOf(item.partOf) }),
      });
    }),
    oneofDecl: type.oneofsArray.map(({ name }) => ({ name })),
    enumType: type.nestedArray.flatMap((t) => (t instanceof protobuf.Enum ? [enumeration(t)] : [])),
  });
}

function enumeration(type: protobuf.Enum): EnumDescriptorProto {
  const value = Object.entries(type.values).map(([name, number]) => ({ name, number }));
  return create(EnumDescriptorProtoSchema, { name: type.name, value });
}
