import { describe, expect, test } from 'vitest';
import { cleanPrompt } from '../../main/studio/prompt/cleanPrompt.ts';

/** UTF-8 read as Windows-1252, as broken software does. */
const broken = (text: string) => new TextDecoder('windows-1252').decode(new TextEncoder().encode(text));

describe('a prompt is cleaned as the authors of Wan do', () => {
  test.each([
    ['plain text stays', 'a red ball bounces on a blue floor', 'a red ball bounces on a blue floor'],
    ['white space is collapsed and trimmed', '  a\t red\n\nball\u00a0 \u3000', 'a red ball'],
    ['HTML references are replaced', 'Tom &amp; Jerry &lt;3 &eacute;', 'Tom & Jerry <3 é'],
    ['twice', 'Tom &amp;amp;amp; Jerry', 'Tom & Jerry'],
    ['numeric ones too', '&#9917; &#x26BD;', '⚽ ⚽'],
    ['curly quotes become straight', '“a ‘red’ ball” isn’t', "\"a 'red' ball\" isn't"],
    ['ligatures are spelled out', 'a ﬁne ﬂower', 'a fine flower'],
    ['full-width forms become ordinary', 'ＲＥＤ　ｂａｌｌ！', 'RED ball!'],
    ['terminal escapes go', '\u001b[31mred\u001b[0m ball', 'red ball'],
    ['control characters go', 'red\u0000 ball\ufeff', 'red ball'],
    ['composed form', 'cafe\u0301', 'café'],
    ['lone surrogates are replaced', 'a \ud800 b', 'a \ufffd b'],
    ['UTF-8 read as Windows-1252', broken('a café in Zürich – “nice”'), 'a café in Zürich – "nice"'],
    ['twice over', broken(broken('schöne Grüße')), 'schöne Grüße'],
    ['also Chinese', broken('红球'), '红球'],
    ['also emoji', broken('a ball ⚽🔥'), 'a ball ⚽🔥'],
    ['honest Latin text stays', 'Ça va? Ärger, naïve façade, señor', 'Ça va? Ärger, naïve façade, señor'],
    ['honest Chinese stays', '一个红色的球在蓝色的地板上弹跳', '一个红色的球在蓝色的地板上弹跳'],
    ['what a repair uncovers is repaired', '&ldquo;hi&rdquo; &amp;ldquo;', '"hi" "'],
    ['what HTML does not know stays', '&nosuch; & &; &#; &notit;', '&nosuch; & &; &#; ¬it;'],
    ['nothing stays nothing', ' \u200b&nbsp; '.replace('\u200b', ''), ''],
  ])('%s', (_, text, cleaned) => expect(cleanPrompt(text)).toBe(cleaned));

  test('endless nesting and ampersands are no trouble', () => {
    expect(cleanPrompt('&'.repeat(10_000))).toHaveLength(10_000);
    expect(cleanPrompt(`&#${'9'.repeat(9_000)};`)).toBe('\ufffd');
  });
});
