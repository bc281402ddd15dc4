/** Full-text search over prompts and names, and the history of prompts. */
export const sql = `
CREATE VIRTUAL TABLE takes_text USING fts5(name, prompt, content = 'takes', content_rowid = 'row', tokenize = "unicode61 remove_diacritics 2", prefix = '2 3');
INSERT INTO takes_text(takes_text) VALUES ('rebuild');
CREATE TRIGGER takes_text_insert AFTER INSERT ON takes BEGIN
  INSERT INTO takes_text(rowid, name, prompt) VALUES (new.row, new.name, new.prompt);
END;
CREATE TRIGGER takes_text_delete AFTER DELETE ON takes BEGIN
  INSERT INTO takes_text(takes_text, rowid, name, prompt) VALUES ('delete', old.row, old.name, old.prompt);
END;
CREATE TRIGGER takes_text_update AFTER UPDATE OF name, prompt ON takes BEGIN
  INSERT INTO takes_text(takes_text, rowid, name, prompt) VALUES ('delete', old.row, old.name, old.prompt);
  INSERT INTO takes_text(rowid, name, prompt) VALUES (new.row, new.name, new.prompt);
END;

CREATE TABLE prompts (
  row INTEGER PRIMARY KEY,
  prompt TEXT NOT NULL,
  negative_prompt TEXT NOT NULL,
  uses INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL,
  UNIQUE (prompt, negative_prompt)
) STRICT;
CREATE INDEX prompts_recent ON prompts(last_used_at);
INSERT INTO prompts(prompt, negative_prompt, uses, last_used_at)
  SELECT json_extract(settings, '$.prompt'), coalesce(json_extract(settings, '$.negativePrompt'), ''), count(*), max(created_at)
  FROM renders GROUP BY 1, 2;

CREATE VIRTUAL TABLE prompts_text USING fts5(prompt, content = 'prompts', content_rowid = 'row', tokenize = "unicode61 remove_diacritics 2", prefix = '2 3');
INSERT INTO prompts_text(prompts_text) VALUES ('rebuild');
CREATE TRIGGER prompts_text_insert AFTER INSERT ON prompts BEGIN
  INSERT INTO prompts_text(rowid, prompt) VALUES (new.row, new.prompt);
END;
CREATE TRIGGER prompts_text_delete AFTER DELETE ON prompts BEGIN
  INSERT INTO prompts_text(prompts_text, rowid, prompt) VALUES ('delete', old.row, old.prompt);
END;
`;
