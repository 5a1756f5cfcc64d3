//! Text that becomes part of a page, whatever it holds: names of tables, SQL, messages.

/// Text as HTML, in an element or in an attribute between double quotes. What can't be seen, or
/// would change how its surroundings are read (control characters, changes of the direction of
/// writing), is written out.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || is_invisible(c) => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// A name: on one line, and its direction of writing is its own.
pub fn name(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text).replace('\n', "\\n").replace('\t', "\\t"))
}

/// Characters that show nothing and steer what is shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup_and_nothing_hides() {
        assert_eq!(
            escape("<script>alert(\"1\" + '&')</script>"),
            "&lt;script&gt;alert(&quot;1&quot; + &#39;&amp;&#39;)&lt;/script&gt;"
        );
        assert_eq!(escape("a\u{202e}b\u{0}c\u{7f}"), "a\\u{202e}b\\u{0}c\\u{7f}");
        assert_eq!(escape("größe 😀 表"), "größe 😀 表");
        assert_eq!(name("a\nb"), "<bdi>a\\nb</bdi>");
    }
}
