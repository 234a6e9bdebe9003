// One cell of the array and of the ripple adder.
module full_adder (
    input  a,
    input  b,
    input  c,
    output sum,
    output carry
);
    assign sum   = a ^ b ^ c;
    assign carry = (a & b) | (a & c) | (b & c);
endmodule
