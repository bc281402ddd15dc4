/** Reads a list that comes page by page, to its end. */
export async function everyPage<Item>(
  page: (cursor: string | null) => Promise<{ items: Item[]; nextCursor: string | null }>,
): Promise<Item[]> {
  const all: Item[] = [];
  let cursor: string | null = null;
  do {
    const { items, nextCursor }: { items: Item[]; nextCursor: string | null } = await page(cursor);
    all.push(...items);
    cursor = nextCursor;
  } while (cursor !== null);
  return all;
}
