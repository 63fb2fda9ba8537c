// Reads a JSON text (RFC 8259) from front to back, without building a tree of it.
//
// The caller asks for what it wants and skips the rest; every character is checked either way, so a
// text that was read to its end without an exception is valid JSON in valid UTF-8. Memory does not
// grow with the text, and nesting is limited, so that no text can exhaust the stack.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace twintrack {

/// The text is not JSON. `what()` says why, with line and column.
class JsonError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// A number as it is written: `text` is what stands there, `value` the nearest double.
struct JsonNumber {
  std::string_view text;
  double value;

  /// Written without fraction and exponent.
  bool whole() const { return text.find_first_of(".eE") == std::string_view::npos; }
};

/// Every function reads one value, of the kind that its name says, and throws JsonError if the text
/// is not JSON there. Look at `next` first: asking for another kind than comes is an error too.
class JsonReader {
 public:
  enum class Kind { null, boolean, number, string, array, object };

  /// `text` must outlive the reader and what it hands out.
  explicit JsonReader(std::string_view text) : text_(text) { skip_space(); }

  /// What comes next.
  Kind next() const {
    const char c = peek();
    if (c == '{') return Kind::object;
    if (c == '[') return Kind::array;
    if (c == '"') return Kind::string;
    if (c == '-' || is_digit(c)) return Kind::number;
    if (c == 't' || c == 'f') return Kind::boolean;
    if (c == 'n') return Kind::null;
    fail("a value is missing here");
  }

  /// Calls `member(name)` for each member, which must read its value.
  template <class Member>
  void object(Member&& member) {
    list('{', '}', [&] {
      if (peek() != '"') fail("the name of a member is missing here");
      const std::string name = string();
      expect(':');
      member(name);
    });
  }

  /// Calls `item()` for each item, which must read it.
  template <class Item>
  void array(Item&& item) {
    list('[', ']', item);
  }

  /// In UTF-8. Half a surrogate pair, which JSON allows, is encoded like any other character.
  std::string string() {
    std::string result;
    expect('"', false);
    while (true) {
      const char c = take("the string does not end");
      if (c == '"') break;
      if (c == '\\')
        append(escape(), result);
      else if (static_cast<unsigned char>(c) < 0x20)
        fail_before("a control character in a string must be escaped");
      else
        copy_character(c, result);
    }
    skip_space();
    return result;
  }

  JsonNumber number() {
    const std::size_t first = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0')
      ++at_;
    else
      digits();
    if (peek() == '.') {
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    const std::string_view text = text_.substr(first, at_ - first);
    const double value = to_double(text);
    skip_space();
    return {text, value};
  }

  bool boolean() {
    const bool value = peek() == 't';
    word(value ? "true" : "false");
    return value;
  }

  void null() { word("null"); }

  /// Reads a value of any kind and forgets it.
  void skip() {
    switch (next()) {
      case Kind::object:
        return object([&](const std::string&) { skip(); });
      case Kind::array:
        return array([&] { skip(); });
      case Kind::string:
        string();
        return;
      case Kind::number:
        number();
        return;
      case Kind::boolean:
        boolean();
        return;
      case Kind::null:
        return null();
    }
  }

  /// Call it after the outermost value: nothing may follow.
  void end() const {
    if (at_ < text_.size()) fail("something follows the end");
  }

  /// Place of what comes next, for `text_since`.
  std::size_t place() const { return at_; }

  /// The text from a place on to what comes next.
  std::string_view text_since(std::size_t place) const {
    std::string_view text = text_.substr(place, at_ - place);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
  }

 private:
  static constexpr int deepest = 64;

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  // The next character; 0, which JSON has no use for, at the end.
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  char take(const char* missing) {
    if (at_ >= text_.size()) fail(missing);
    return text_[at_++];
  }

  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }

  void expect(char c, bool then_space = true) {
    if (peek() != c) fail(std::string("'") + c + "' is missing here");
    ++at_;
    if (then_space) skip_space();
  }

  template <class Item>
  void list(char open, char close, Item&& item) {
    expect(open);
    if (++depth_ > deepest) fail("it is nested too deeply");
    if (peek() != close) {
      item();
      while (peek() == ',') {
        expect(',');
        item();
      }
    }
    expect(close);
    --depth_;
  }

  void digits() {
    if (!is_digit(peek())) fail("a digit is missing here");
    while (is_digit(peek())) ++at_;
  }

  void word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) fail("a value is missing here");
    at_ += expected.size();
    skip_space();
  }

  // A number so small that no double but 0 is near is 0, as in Python; one that is too large is
  // refused.
  double to_double(std::string_view text) const {
    double value = 0;
#if defined(__cpp_lib_to_chars)
    const std::from_chars_result read =
        std::from_chars(text.data(), text.data() + text.size(), value);
    const bool in_range = read.ec == std::errc{};
#else
    std::istringstream stream{std::string(text)};
    stream.imbue(std::locale::classic());
    const bool in_range = static_cast<bool>(stream >> value);
#endif
    if (in_range) return value;
    if (decimal_exponent(text) > 0)
      fail_at(at_ - text.size(),
              "the number " + std::string(text.substr(0, 60)) + " is out of the range of a double");
#if defined(__cpp_lib_to_chars)
    return text.front() == '-' ? -0.0 : 0.0;
#else
    return value;  // 0 or subnormal: some libraries take that for an error, but give it
#endif
  }

  // The power of ten of the first digit that is not 0, or one more; of a number that has one.
  static std::int64_t decimal_exponent(std::string_view text) {
    if (text.front() == '-') text.remove_prefix(1);
    const auto mark = text.find_first_of("eE");
    const std::string_view written = text.substr(0, mark);
    const auto first = static_cast<std::int64_t>(written.find_first_of("123456789"));
    const auto point = static_cast<std::int64_t>(std::min(written.find('.'), written.size()));
    const std::int64_t place = point - first;
    if (mark == std::string_view::npos) return place;
    std::string_view power = text.substr(mark + 1);
    if (power.front() == '+') power.remove_prefix(1);
    std::int64_t exponent = 0;
    const std::from_chars_result read =
        std::from_chars(power.data(), power.data() + power.size(), exponent);
    constexpr std::int64_t beyond = std::int64_t{1} << 60;  // of any text's length
    if (read.ec != std::errc{} || exponent < -beyond || exponent > beyond)
      exponent = power.front() == '-' ? -beyond : beyond;
    return place + exponent;
  }

  // The character that an escape sequence, of which the backslash is read, stands for.
  std::uint32_t escape() {
    switch (take("the string does not end")) {
      case '"':
        return '"';
      case '\\':
        return '\\';
      case '/':
        return '/';
      case 'b':
        return '\b';
      case 'f':
        return '\f';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'u':
        break;
      default:
        fail_before("there is no such escape sequence");
    }
    const std::uint32_t first = four_hex_digits();
    const bool high = first >= 0xd800 && first < 0xdc00;
    if (!high || text_.substr(at_, 2) != "\\u") return first;
    const std::size_t before = at_;
    at_ += 2;
    const std::uint32_t second = four_hex_digits();
    if (second >= 0xdc00 && second < 0xe000)
      return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    at_ = before;
    return first;
  }

  std::uint32_t four_hex_digits() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = take("the string does not end");
      value <<= 4;
      if (is_digit(c))
        value += static_cast<std::uint32_t>(c - '0');
      else if (c >= 'a' && c <= 'f')
        value += static_cast<std::uint32_t>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F')
        value += static_cast<std::uint32_t>(c - 'A' + 10);
      else
        fail_before("\\u needs four hexadecimal digits");
    }
    return value;
  }

  static void append(std::uint32_t character, std::string& to) {
    const auto put = [&](std::uint32_t byte) { to += static_cast<char>(byte); };
    if (character < 0x80) return put(character);
    if (character < 0x800) {
      put(0xc0 | character >> 6);
    } else if (character < 0x10000) {
      put(0xe0 | character >> 12);
      put(0x80 | (character >> 6 & 0x3f));
    } else {
      put(0xf0 | character >> 18);
      put(0x80 | (character >> 12 & 0x3f));
      put(0x80 | (character >> 6 & 0x3f));
    }
    put(0x80 | (character & 0x3f));
  }

  // Copies the UTF-8 character that starts with `first`: the shortest form, no surrogates, at most
  // U+10FFFF (Unicode Standard, table 3-7).
  void copy_character(char first, std::string& to) {
    const auto lead = static_cast<unsigned char>(first);
    to += first;
    if (lead < 0x80) return;
    int more = 0;
    unsigned low = 0x80;
    unsigned high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
      more = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      more = 2;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      more = 3;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    } else {
      fail_before("it is not UTF-8");
    }
    for (; more > 0; --more) {
      const char c = take("the string does not end");
      const auto byte = static_cast<unsigned char>(c);
      if (byte < low || byte > high) fail_before("it is not UTF-8");
      to += c;
      low = 0x80;
      high = 0xbf;
    }
  }

  [[noreturn]] void fail(const std::string& what) const { fail_at(at_, what); }
  // Of the character that was just read.
  [[noreturn]] void fail_before(const std::string& what) const { fail_at(at_ - 1, what); }

  [[noreturn]] void fail_at(std::size_t place, const std::string& what) const {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < place && i < text_.size(); ++i) {
      ++column;
      if (text_[i] != '\n') continue;
      ++line;
      column = 1;
    }
    throw JsonError(what + ": line " + std::to_string(line) + ", column " + std::to_string(column));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace twintrack
