// Text that Kubernetes is not to expand: in args and in values of env, $(NAME) stands for a variable, and $$ for a dollar.

/** The way back, of what was written so. */
export function fromLiteral(text: string): string {
  return text.replaceAll('$$', () => '$');
}

export function literal(text: string): string {
  return text.replaceAll('$', '$$$$');
}
