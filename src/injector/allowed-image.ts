// Which images the sidecar's containers may be of: whoever may write a pod's annotations must not choose the program that holds its identity.

import type { InjectorConfig } from './config.ts';

/** The configuration's own repository, with any tag or digest, or what `allowedProxyImages` names: a repository, or one image exactly. */
export function isAllowedImage(image: string, config: Pick<InjectorConfig, 'image' | 'allowedProxyImages'>): boolean {
  const repository = repositoryOf(image);
  return (
    repository === repositoryOf(config.image) || config.allowedProxyImages.some((allowed) => allowed === image || allowed === repository)
  );
}

/** Without tag and digest; the port of a registry is not a tag. */
function repositoryOf(image: string): string {
  const [named = ''] = image.split('@');
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  return colon === -1 ? named : named.slice(0, colon);
}
