// Which pod a process is in, by what /proc/PID/cgroup says under each driver, runtime and namespace; and what only looks like it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PodCgroups, podOfToken } from '../../src/agent/pod-cgroups.ts';
import { refusal } from '../support/refusal.ts';

const UID = '0b1d8c5e-5f0e-4b0e-9a54-6b2f4c1d2e3f';
const OTHER = 'ffffffff-5f0e-4b0e-9a54-6b2f4c1d2e3f';
const under = (uid: string) => uid.replaceAll('-', '_');
const SLICE = `kubepods-burstable-pod${under(UID)}.slice`;
const ID = 'c0ffee'.repeat(10);

function podOf(text: string, root = '/') {
  return new PodCgroups(root).podOf(text);
}

describe('in the pod', () => {
  for (const [what, text, root] of [
    ['v2, systemd, containerd', `0::/kubepods.slice/kubepods-burstable.slice/${SLICE}/cri-containerd-${ID}.scope\n`],
    [
      'v2, systemd, CRI-O with a container of its own below',
      `0::/kubepods.slice/kubepods-burstable.slice/${SLICE}/crio-${ID}.scope/container\n`,
    ],
    [
      'v2, systemd, best effort',
      `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${under(UID)}.slice/cri-containerd-${ID}.scope`,
    ],
    ['v2, systemd, guaranteed', `0::/kubepods.slice/kubepods-pod${under(UID)}.slice/cri-containerd-${ID}.scope`],
    ['v2, cgroupfs', `0::/kubepods/burstable/pod${UID}/${ID}\n`],
    ['v2, cgroupfs, guaranteed', `0::/kubepods/pod${UID}/${ID}\n`],
    [
      'v1, cgroupfs',
      `12:pids:/kubepods/besteffort/pod${UID}/${ID}\n4:cpu,cpuacct:/kubepods/besteffort/pod${UID}/${ID}\n1:name=systemd:/kubepods/besteffort/pod${UID}/${ID}\n`,
    ],
    [
      'v1, systemd',
      `12:pids:/kubepods.slice/kubepods-burstable.slice/${SLICE}/cri-containerd-${ID}.scope\n0::/system.slice/containerd.service\n`,
    ],
    ['v1, not in all hierarchies', `12:pids:/\n1:name=systemd:/kubepods/pod${UID}/${ID}\n0::/\n`],
    ['a namespace of the agent, burstable beside burstable', `0::/../../${SLICE}/cri-containerd-${ID}.scope`],
    [
      'a namespace of the agent, best effort',
      `0::/../../../kubepods-besteffort.slice/kubepods-besteffort-pod${under(UID)}.slice/cri-containerd-${ID}.scope`,
    ],
    ['a namespace of the agent, guaranteed', `0::/../../../kubepods-pod${under(UID)}.slice/cri-containerd-${ID}.scope`],
    ['a namespace elsewhere on the node', `0::/../../kubepods.slice/kubepods-burstable.slice/${SLICE}/cri-containerd-${ID}.scope`],
    ['a namespace of the agent, cgroupfs', `0::/../../pod${UID}/${ID}`],
    ['a namespace of the agent, cgroupfs, another class', `0::/../../../besteffort/pod${UID}/${ID}`],
    [
      'kubelet’s own root, systemd',
      `0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-${SLICE}/cri-containerd-${ID}.scope`,
      '/kubelet',
    ],
    ['kubelet’s own root, cgroupfs', `0::/a-b/c/kubepods/burstable/pod${UID}/${ID}`, '/a-b/c'],
    ['kubelet’s own root with a hyphen, systemd', `0::/a_b.slice/a_b-kubepods.slice/a_b-kubepods-pod${under(UID)}.slice/x.scope`, '/a-b'],
    ['a container that is called as another pod', `0::/kubepods/burstable/pod${UID}/pod${OTHER}/kubepods/burstable/pod${OTHER}`],
    [
      'a container that is called as another pod’s slice',
      `0::/kubepods.slice/kubepods-burstable.slice/${SLICE}/${SLICE.replace(under(UID), under(OTHER))}`,
    ],
    ['a container with a colon in its name', `0::/kubepods/burstable/pod${UID}/a:b:0::/kubepods/burstable/pod${OTHER}`],
  ] as const)
    test(what, () => assert.equal(podOf(text, root), UID));

  test('a static pod has a digest for a uid', () => assert.equal(podOf(`0::/kubepods/burstable/pod${'0a'.repeat(16)}/x`), '0a'.repeat(16)));
});

describe('in no pod', () => {
  for (const [what, text, root] of [
    ['nothing', ''],
    ['the root', '0::/\n'],
    ['a service of the node', '0::/system.slice/containerd.service\n'],
    ['the classes themselves', '0::/kubepods.slice/kubepods-burstable.slice\n'],
    ['a user’s own cgroups', `0::/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-burstable.slice/${SLICE}/x`],
    ['a user’s own cgroups, out of a namespace', `0::/../../../../user.slice/user-1000.slice/user@1000.service/${SLICE}/x`],
    ['a container of something else than kubelet', `0::/docker/${ID}/kubepods/burstable/pod${UID}/${ID}`],
    ['a pod’s name where none is put', `0::/pod${UID}/${ID}`],
    ['the middle of the way alone', `0::/burstable/pod${UID}/${ID}`],
    ['a class that is none', `0::/kubepods/guaranteed/pod${UID}/${ID}`],
    ['one class in another', `0::/kubepods/burstable/besteffort/pod${UID}/${ID}`],
    ['a slice of another class', `0::/kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod${under(UID)}.slice/x`],
    ['kubelet’s root, where another is told', `0::/kubepods/burstable/pod${UID}/${ID}`, '/kubelet'],
    ['another root', `0::/kubelet/kubepods/burstable/pod${UID}/${ID}`],
    ['a way up in the middle', `0::/kubepods/../kubepods/burstable/pod${UID}/${ID}`],
    ['a uid that is none', '0::/kubepods/burstable/pod../x'],
    ['a uid with more behind it', `0::/kubepods/burstable/pod${UID}x/${ID}`],
    ['a pod that is gone', `0::/kubepods/burstable/pod${UID} (deleted)`],
    ['two pods', `2:pids:/kubepods/burstable/pod${UID}/x\n1:name=systemd:/kubepods/burstable/pod${OTHER}/x\n`],
    ['a line that is none', `kubepods/burstable/pod${UID}/x`],
    ['upper case', `0::/kubepods/burstable/pod${UID.toUpperCase()}/x`],
  ] as const)
    test(what, () => assert.equal(podOf(text, root), undefined));
});

for (const root of ['', 'kubelet', '/kubelet/', '//', '/a/../b', '/.'])
  test(`${JSON.stringify(root)} is no root`, () => assert.throws(() => new PodCgroups(root), refusal('CONFIG_INVALID', '--pod-cgroups')));

describe('the pod of a token', () => {
  const token = (claims: object) =>
    [{ alg: 'RS256', kid: 'a' }, claims, 'signature']
      .map((part) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url'))
      .join('.');
  test('is the one that it is bound to', () =>
    assert.equal(podOfToken(token({ 'kubernetes.io': { pod: { name: 'web', uid: UID } } })), UID));
  for (const [what, text] of [
    ['bound to no pod', token({ 'kubernetes.io': { namespace: 'foo' } })],
    ['of no API server', token({ sub: 'x' })],
    ['with an empty uid', token({ 'kubernetes.io': { pod: { uid: '' } } })],
    ['with a uid that is no text', token({ 'kubernetes.io': { pod: { uid: 7 } } })],
    ['that is none', 'x'],
    ['that is empty', ''],
  ] as const)
    test(`a token ${what} has none`, () => assert.equal(podOfToken(text), undefined));
});
