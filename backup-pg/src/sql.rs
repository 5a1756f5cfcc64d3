//! SQL as pg_dump and pg_dumpall write it: cut into tokens and statements, and quoted.
//!
//! The tokenizer loses nothing: its tokens joined give the input. It knows what a rewrite must
//! not mistake for something else: strings, quoted names, dollar quotes, comments, psql's
//! backslash commands. It is no parser, and reads the default `standard_conforming_strings`.
//! Absent on purpose: splitting at semicolons inside `BEGIN ATOMIC`; only roles, settings and
//! database properties are split here.

use std::borrow::Cow;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Blanks and line ends.
    Space,
    /// `-- ..` or `/* .. */`.
    Comment,
    /// A keyword or a plain name.
    Word,
    /// `"a name"`.
    QuotedName,
    /// `'text'`.
    Text,
    /// `E'text'`, where a backslash escapes.
    EscapedText,
    /// `$tag$ .. $tag$`.
    DollarText,
    /// `\restrict ..`, `\connect ..`: the rest of the line belongs to psql.
    Backslash,
    /// Any other single character.
    Symbol,
}

/// A piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// The piece itself, as it stood.
    pub text: &'a str,
    /// Where it starts, in bytes.
    pub start: usize,
}

impl<'a> Token<'a> {
    /// Whether it is this keyword, in any case.
    pub fn is_keyword(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this character.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text == symbol
    }

    /// Whether it says nothing: space or a comment.
    pub fn is_blank(&self) -> bool {
        matches!(self.kind, TokenKind::Space | TokenKind::Comment)
    }

    /// The name that it stands for; `None` when it is no name.
    ///
    /// ```
    /// use backup_pg::sql::tokens;
    /// assert_eq!(tokens(r#""a ""b""#).next().unwrap().name().unwrap(), r#"a "b"#);
    /// assert_eq!(tokens("Claims").next().unwrap().name().unwrap(), "claims");
    /// ```
    pub fn name(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            TokenKind::Word if self.text.bytes().any(|b| b.is_ascii_uppercase()) => {
                Some(self.text.to_ascii_lowercase().into())
            }
            TokenKind::Word => Some(self.text.into()),
            TokenKind::QuotedName => Some(undouble(inner(self.text, 1), "\"")),
            _ => None,
        }
    }

    /// The text that it stands for; `None` when it is no string.
    pub fn string(&self) -> Option<Cow<'a, str>> {
        match self.kind {
            TokenKind::Text => Some(undouble(inner(self.text, 1), "'")),
            TokenKind::EscapedText => Some(unescape(inner(self.text, 2)).into()),
            TokenKind::DollarText => {
                let tag = self.text[1..].find('$')? + 2;
                self.text.get(tag..self.text.len().checked_sub(tag)?).map(Cow::Borrowed)
            }
            _ => None,
        }
    }
}

/// Without `open` characters in front and the closing quote.
fn inner(text: &str, open: usize) -> &str {
    let inner = &text[open..];
    inner.strip_suffix(['\'', '"']).unwrap_or(inner)
}

fn undouble<'a>(text: &'a str, quote: &str) -> Cow<'a, str> {
    if text.contains(quote) { text.replace(&quote.repeat(2), quote).into() } else { text.into() }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some(other) => out.push(other),
                None => {}
            },
            '\'' => {
                out.push('\'');
                rest.next();
            }
            other => out.push(other),
        }
    }
    out
}

/// Cuts SQL into tokens. What is not closed reaches to the end.
pub fn tokens(sql: &str) -> Tokens<'_> {
    Tokens { sql, at: 0, line_start: true }
}

/// The tokens of a piece of SQL, see [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    sql: &'a str,
    at: usize,
    /// Whether nothing but blanks stood in this line so far.
    line_start: bool,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = &self.sql[self.at..];
        let (kind, length) = first_token(rest, self.line_start)?;
        let text = &rest[..length];
        let start = self.at;
        self.at += length;
        self.line_start = match kind {
            TokenKind::Space => self.line_start || text.contains('\n'),
            TokenKind::Comment => self.line_start,
            TokenKind::Backslash => true,
            _ => false,
        };
        Some(Token { kind, text, start })
    }
}

fn first_token(rest: &str, line_start: bool) -> Option<(TokenKind, usize)> {
    let first = rest.chars().next()?;
    let starts = |prefix: &str| rest.starts_with(prefix);
    Some(match first {
        c if c.is_ascii_whitespace() => {
            (TokenKind::Space, length_while(rest, |c| c.is_ascii_whitespace()))
        }
        '-' if starts("--") => (TokenKind::Comment, length_while(rest, |c| c != '\n')),
        '/' if starts("/*") => (TokenKind::Comment, block_comment(rest)),
        '\\' if line_start => (TokenKind::Backslash, length_while(rest, |c| c != '\n')),
        '\'' => (TokenKind::Text, quoted(rest, 1, '\'', false)),
        '"' => (TokenKind::QuotedName, quoted(rest, 1, '"', false)),
        'e' | 'E' if rest[1..].starts_with('\'') => {
            (TokenKind::EscapedText, quoted(rest, 2, '\'', true))
        }
        '$' => match dollar(rest) {
            Some(length) => (TokenKind::DollarText, length),
            None => (TokenKind::Symbol, 1),
        },
        c if is_word(c) => (TokenKind::Word, length_while(rest, |c| is_word(c) || c == '$')),
        c => (TokenKind::Symbol, c.len_utf8()),
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

fn length_while(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// Length of a quoted token; a doubled quote does not close it.
fn quoted(text: &str, open: usize, quote: char, backslashes: bool) -> usize {
    let mut chars = text.char_indices().skip(open).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && backslashes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// Block comments nest in PostgreSQL.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(two) = text.as_bytes().get(at..at + 2) {
        match two {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Length of a dollar-quoted string; `None` when it is none (`$1`).
fn dollar(text: &str) -> Option<usize> {
    let tag = &text[..text[1..].find('$')? + 2];
    let name = &tag[1..tag.len() - 1];
    if !name.chars().all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let closing = text[tag.len()..].find(tag)?;
    Some(tag.len() + closing + tag.len())
}

/// Cuts SQL into statements, each without its semicolon and without blanks at its ends.
/// Comments alone and psql's backslash commands are no statements.
///
/// ```
/// use backup_pg::sql::statements;
/// let sql = "-- roles\nCREATE ROLE a;\n\\unrestrict x\nCOMMENT ON ROLE a IS 'b;c';";
/// let found: Vec<_> = statements(sql).collect();
/// assert_eq!(found, ["CREATE ROLE a", "COMMENT ON ROLE a IS 'b;c'"]);
/// ```
pub fn statements(sql: &str) -> impl Iterator<Item = &str> {
    let mut tokens = tokens(sql);
    std::iter::from_fn(move || {
        let mut range: Option<(usize, usize)> = None;
        #[allow(clippy::while_let_on_iterator, reason = "the next statement goes on with them")]
        while let Some(token) = tokens.next() {
            if token.is_symbol(";") {
                if range.is_some() {
                    break;
                }
            } else if !token.is_blank() && token.kind != TokenKind::Backslash {
                range = Some((range.map_or(token.start, |(first, _)| first), tokens.at));
            }
        }
        range.map(|(first, end)| &sql[first..end])
    })
}

/// The tokens of a statement that say something.
pub fn words(sql: &str) -> Vec<Token<'_>> {
    tokens(sql).filter(|token| !token.is_blank()).collect()
}

/// A name, quoted always.
///
/// ```
/// assert_eq!(backup_pg::sql::quote_ident(r#"a "b"#), r#""a ""b""#);
/// ```
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string, in a form that means the same whatever `standard_conforming_strings` says.
///
/// ```
/// assert_eq!(backup_pg::sql::quote_literal("it's"), "'it''s'");
/// assert_eq!(backup_pg::sql::quote_literal(r"a\b"), r"E'a\\b'");
/// ```
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = r#"CREATE DATABASE "a ""b; -- c
😀" /* x /* ; */ ' */ WITH x = E'a\';''b' -- it's ; "
 IS $fn$ ';$$ $fn$ AND $1 'a;''b' naïve$1 \no;
\restrict 'k;
\unrestrict k"#;

    #[test]
    fn tokens_lose_nothing() {
        let joined: String = tokens(HOSTILE).map(|token| token.text).collect();
        assert_eq!(joined, HOSTILE);
        for cut in (0..HOSTILE.len()).filter(|cut| HOSTILE.is_char_boundary(*cut)) {
            let joined: String = tokens(&HOSTILE[..cut]).map(|token| token.text).collect();
            assert_eq!(joined, &HOSTILE[..cut]);
            for token in tokens(&HOSTILE[cut..]) {
                let _ = (token.name(), token.string());
            }
        }
    }

    #[test]
    fn tokens_are_what_they_are() {
        use TokenKind::*;
        let kinds: Vec<_> = words(HOSTILE).iter().map(|token| (token.kind, token.text)).collect();
        assert_eq!(kinds[2], (QuotedName, "\"a \"\"b; -- c\n😀\""));
        assert_eq!(kinds[6], (EscapedText, r"E'a\';''b'"));
        assert_eq!(kinds[8], (DollarText, "$fn$ ';$$ $fn$"));
        assert_eq!(&kinds[10..12], [(Symbol, "$"), (Word, "1")]);
        assert_eq!(kinds[13], (Word, "naïve$1"));
        assert_eq!(kinds.last(), Some(&(Backslash, "\\unrestrict k")));
    }

    #[test]
    fn values_come_out_of_their_quotes() {
        let all = words(HOSTILE);
        assert_eq!(all[2].name().unwrap(), "a \"b; -- c\n😀");
        assert_eq!(all[6].string().unwrap(), "a';'b");
        assert_eq!(all[8].string().unwrap(), " ';$$ ");
        assert_eq!(all[12].string().unwrap(), "a;'b");
    }

    #[test]
    fn a_semicolon_inside_quotes_splits_nothing() {
        let found: Vec<_> = statements(HOSTILE).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("\\no"));
        assert_eq!(statements(";; -- x\n ;").count(), 0);
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for text in ["", "a", "it's", "\"", "\\", "a\\'b\n😀\"", "$$", "E'", "--"] {
            let (name, string) = (quote_ident(text), quote_literal(text));
            assert_eq!(words(&name)[0].name().unwrap(), text);
            assert_eq!(words(&string).len(), 1);
            assert_eq!(words(&string)[0].string().unwrap(), text);
        }
    }
}
